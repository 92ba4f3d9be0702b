"""The backend's own settings of the process."""

import platform
import subprocess
import sys

import pytest
from conftest import PROJECT

COUNT = """
import resource, sys
import numpy as np
if sys.argv[1] == "ours":
    import histopath.models.backend
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.full(8_000_000, 1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept_for_the_next_step():
    faults = {}
    for name in ("ours", "default"):
        command = [sys.executable, "-c", COUNT, name]
        faults[name] = int(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)
    assert faults["ours"] < 100 < faults["default"]

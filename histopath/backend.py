"""Keras and its backend, without TensorFlow's notices, and with an allocator that keeps its memory.

Every module takes `keras` and `ops` from here. The notices are those that TensorFlow's libraries print whatever their log
level is: see tensorflow/tensorflow issue 100442, `TF_CPP_MIN_LOG_LEVEL` does not reach what is logged while the libraries
load, and a notebook would keep those lines as its output.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Sends what is written to the process's stderr, by C libraries too, nowhere."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to keep freed memory for the next step; returns whether it did (not on other C libraries).

    By default every large tensor is a mapping of its own, returned to the kernel when it is freed and faulted in again,
    page by page, in the next step: a third of the processor time of a training on two cores, see benchmarks/README.md.
    The peak of memory does not change. For the parameters see mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    settings = {-4: 0, -1: 2**31 - 1, -2: 2**28, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX
    return mallopt is not None and all([mallopt(name, value) for name, value in settings.items()])


keep_freed_memory()
with silent_stderr():
    import keras
    from keras import ops

# Several networks in one process are several traces, of which TensorFlow warns on the sixth.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = ["keras", "ops", "silent_stderr"]

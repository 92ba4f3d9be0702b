"""Keras and its backend, imported without the notices that TensorFlow's libraries print whatever their log level is.

Every module takes `keras` and `ops` from here. See tensorflow/tensorflow issue 100442: `TF_CPP_MIN_LOG_LEVEL` does not
reach what is logged while the libraries load, and a notebook would keep those lines as its output.
"""

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


with silent_stderr():
    import keras
    from keras import ops

__all__ = ["keras", "ops", "silent_stderr"]

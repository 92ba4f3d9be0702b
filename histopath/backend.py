"""Keras and its backend, without TensorFlow's notices, and with an allocator that keeps its memory.

Every module takes `keras` and `ops` from here. The notices are those that TensorFlow's libraries print whatever their log
level is: see tensorflow/tensorflow issue 100442, `TF_CPP_MIN_LOG_LEVEL` does not reach what is logged while the libraries
load, and a notebook would keep those lines as its output.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


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

__all__ = ["accelerators", "device_memory", "keep_freed_memory", "keras", "ops", "silent_stderr", "uses_xla"]
# Several networks in one process are several traces, of which TensorFlow warns on the sixth.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def uses_xla() -> bool:
    """Whether steps are compiled by XLA: always on JAX, never on TensorFlow.

    On a processor TensorFlow's XLA is many times slower for these networks; on a GPU it has not been measured yet.
    """
    return keras.backend.backend() == "jax"


def accelerators() -> list[str]:
    """Returns the names of the local GPUs or TPUs that the Keras backend sees."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # its physical devices: to list the others would set them up for good

        return [device.name for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    return [name for name in keras.distribution.list_devices() if not name.lower().startswith("cpu")]


def device_memory() -> int | None:
    """Returns the bytes of the first accelerator that the backend may use; None without one, or where it does not say."""
    if not accelerators():
        return None
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.client import device_lib

        return next((one.memory_limit for one in device_lib.list_local_devices() if one.device_type == "GPU"), None)
    if keras.backend.backend() == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None


def several_devices(count: int) -> tuple[AbstractContextManager, int]:
    """Prepares training on several local devices, each with a part of every batch.

    Args:
        count: how many; 0 for all accelerators, or the processor where there is none. Without accelerators a number above 1
            asks for virtual devices of the processor, which is of use for trying only.

    Returns:
        The scope in which network and optimiser are to be built, and the number of devices.

    Raises:
        ValueError: when there are fewer devices, or the backend cannot do it.
    """
    names = accelerators()
    count = count or max(1, len(names))
    if count == 1:
        return nullcontext(), 1
    if names and count > len(names):
        raise ValueError(f"There are {len(names)} accelerators here, not {count}; give --set devices={len(names)}.")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not names:
            try:
                virtual = [tf.config.LogicalDeviceConfiguration()] * count
                tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], virtual)
            except RuntimeError:  # they were set up before
                if len(tf.config.list_logical_devices("CPU")) < count:
                    raise ValueError(f"The processor cannot be split into {count} any more; start a new process.") from None
        kind = "GPU" if names else "CPU"
        return tf.distribute.MirroredStrategy([f"{kind}:{number}" for number in range(count)]).scope(), count
    if keras.backend.backend() == "jax":
        names = names or keras.distribution.list_devices()
        if count > len(names):
            flag = f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
            raise ValueError(f"JAX sees {len(names)} devices, not {count}; a processor is split by {flag}.")
        return keras.distribution.DataParallel(devices=names[:count], auto_shard_dataset=False).scope(), count
    raise ValueError(f"Several devices need KERAS_BACKEND=tensorflow or jax, not {keras.backend.backend()}.")

"""Keras and its backend: oneDNN's kernels, an allocator that keeps its memory, and none of TensorFlow's notices.

Every module takes `keras` and `ops` from here. The notices are those that TensorFlow's libraries print whatever their log
level is: see tensorflow/tensorflow issue 100442, `TF_CPP_MIN_LOG_LEVEL` does not reach what is logged while the libraries
load, and a notebook would keep those lines as its output.
"""

import ctypes
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from histopath.config import home
from histopath.files import InputError


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
# TensorFlow's default only where the processor has AVX-512 VNNI; with AVX2 too, a training step takes three quarters of the time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
with silent_stderr():
    import keras
    from keras import ops

__all__ = [
    "accelerators",
    "device_memory",
    "first_line",
    "from_first_process",
    "join_processes",
    "keep_freed_memory",
    "keras",
    "leave_processes",
    "on_one_device",
    "ops",
    "several_devices",
    "silent_stderr",
    "uses_xla",
]
if keras.backend.backend() == "jax" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    import jax

    # What is compiled once, small functions too, is read in the next process: see benchmarks/README.md.
    jax.config.update("jax_compilation_cache_dir", str(home() / "data" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
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


def join_processes() -> tuple[int, int]:
    """Joins the other processes of one training; returns the number of this process, and how many there are.

    Without Keras's own variables there is one. `KERAS_DISTRIBUTION_NUM_PROCESSES`, `…_JOB_ADDRESSES` (host:port at which
    process 0 can be reached) and `…_PROCESS_ID` announce others, on this machine or on several: see
    `keras.distribution.initialize`. It has to be called before anything is computed.

    Raises:
        InputError: when the backend cannot do it, or the others are not met.
    """
    if int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES") or 1) == 1:
        return 0, 1
    if keras.backend.backend() != "jax":
        raise InputError("Several processes train together with KERAS_BACKEND=jax alone; Keras cannot do it on TensorFlow yet.")
    import jax

    if not jax.distributed.is_initialized():
        name = socket.gethostname()
        try:
            socket.gethostbyname(name)
        except OSError:
            raise InputError(f"JAX must look up the name of this machine, {name}, and cannot; add it to /etc/hosts.") from None
        try:
            keras.distribution.initialize()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"The other processes were not met ({first_line(error)}); start all of them again.") from None
    return jax.process_index(), jax.process_count()


def leave_processes() -> None:
    """Ends what `join_processes` began, so that each process ends when it likes."""
    if keras.backend.backend() == "jax":
        import jax

        if jax.distributed.is_initialized():
            jax.distributed.shutdown()


def from_first_process(text: str, arrays: list[np.ndarray] | None = None) -> tuple[str, list[np.ndarray]]:
    """Gives every process the text of process 0, and its arrays, which have the same shapes in all; see `join_processes`."""
    arrays = arrays or []
    if keras.backend.backend() != "jax":
        return text, arrays
    import jax
    from jax.experimental.multihost_utils import broadcast_one_to_all

    if jax.process_count() == 1:
        return text, arrays
    content = np.frombuffer(text.encode(), "uint8")
    length = int(broadcast_one_to_all(np.int32(len(content))))
    content, arrays = broadcast_one_to_all((np.resize(content, length), arrays))
    return bytes(np.asarray(content)).decode(), [np.asarray(array) for array in arrays]


@contextmanager
def on_one_device() -> Iterator[None]:
    """Leaves, on JAX, the scope of several devices: networks in this block are whole and local. On TensorFlow it does nothing."""
    shared = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(shared)


def first_line(error: Exception) -> str:
    """What an error says, without what a library adds in further lines."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def several_devices(count: int) -> tuple[AbstractContextManager, int]:
    """Prepares training on several local devices, each with a part of every batch.

    Args:
        count: how many, those of other processes included; 0 for all accelerators, or for one processor a process where
            there is none. Without accelerators a larger number asks for virtual devices of the processor, of use for trying.

    Returns:
        The scope in which network and optimizer are to be built, and the number of devices.

    Raises:
        InputError: when there are fewer devices, or the backend cannot do it.
    """
    names, processes = accelerators(), join_processes()[1]
    count = count or max(processes, len(names))
    if count == 1:
        return nullcontext(), 1
    if names and count > len(names):
        raise InputError(f"There are {len(names)} accelerators here, not {count}; give --set devices={len(names)}.")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not names:
            try:
                virtual = [tf.config.LogicalDeviceConfiguration()] * count
                tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], virtual)
            except RuntimeError:  # they were set up before
                if len(tf.config.list_logical_devices("CPU")) < count:
                    raise InputError(f"The processor cannot be split into {count} any more; start a new process.") from None
        kind = "GPU" if names else "CPU"
        return tf.distribute.MirroredStrategy([f"{kind}:{number}" for number in range(count)]).scope(), count
    if keras.backend.backend() == "jax":
        names = names or keras.distribution.list_devices()
        if count > len(names):
            flag = f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
            raise InputError(f"JAX sees {len(names)} devices, not {count}; a processor is split by {flag}.")
        return keras.distribution.DataParallel(devices=names[:count], auto_shard_dataset=False).scope(), count
    raise InputError(f"Several devices need KERAS_BACKEND=tensorflow or jax, not {keras.backend.backend()}.")

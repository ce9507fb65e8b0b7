"""The machine that a trial runs on: device, threads, memory, versions."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import platform
import resource
import socket
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nodebench.planning.available_resources import cpu_count, memory_bytes

RECORDED_PACKAGES = ("nodebench", "torch", "numba", "torchdiffeq", "scipy")


def select_device(gpus: float) -> torch.device:
    """The device of a trial with this share of a GPU."""
    return torch.device("cuda" if gpus > 0 else "cpu")


def set_precision(precision: str) -> None:
    """Disables TF32 for float32 on a GPU, unless the precision is `tf32`."""
    is_short = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = is_short


@contextmanager
def torch_settings_kept() -> Generator[None]:
    """Restores the process's threads and precision after trials: it may be a notebook."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    threads, before = torch.get_num_threads(), (cudnn.allow_tf32, matmul.allow_tf32)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.allow_tf32, matmul.allow_tf32 = before


def gpu_count() -> int:
    """The number of GPUs that this process can use."""
    return torch.cuda.device_count()


def synchronize(device: torch.device) -> None:
    """Waits for the device's queued work, so that the time measured next is correct."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_of_trial(gpus: float) -> int:
    """Bytes that a trial may use, given its share of a GPU or its threads of the CPU."""
    if gpus:
        return int(torch.cuda.get_device_properties().total_memory * min(gpus, 1.0))
    share = min(1.0, torch.get_num_threads() / cpu_count())
    return int(memory_bytes() * share)


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement of `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux: resets the process's high-water mark
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


TORCH_ALLOCATOR = "DefaultCPUAllocator: "
"""The beginning of torch's own message, when it gets no memory on a CPU."""


def shortage(error: BaseException) -> str:
    """The reason of an out-of-memory error, and its remedy.

    Python's `MemoryError` has no message, and torch's for a CPU begins with a line of its code.
    """
    message = str(error).removesuffix(".") or "Python ran out of memory"
    cause = message.partition(TORCH_ALLOCATOR)[2] or message
    return f"{cause}: use a smaller batch or model, or fewer steps"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error; for a CPU, torch has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def where_memory_suffices() -> Generator[None]:
    """A context that ends silently if the code in it runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise


def release_memory(device: torch.device) -> None:
    """Releases unused memory, and starts a new measurement of `peak_memory`."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        with suppress(OSError, AttributeError):  # glibc keeps freed memory, which would hide a peak
            ctypes.CDLL(None).malloc_trim(0)
    reset_peak_memory(device)


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of `mallopt`, as in malloc.h."""


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory, so that tensors of megabytes do not need new pages.

    By default, the kernel maps each of them again and fills it with zeros. This takes a tenth of
    the time of a step of S1's OdeNet, and a third of that of a packed step of small networks.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 32 << 20)
        library.mallopt(TRIM_THRESHOLD, 1 << 30)
        library.mallopt(TOP_PAD, 64 << 20)


def return_freed_memory() -> None:
    """Lets the C library return tensors of megabytes to the system when they are freed.

    glibc before 2.38 does not place aligned blocks, as torch requests them, in the gaps left by
    earlier ones. A solve with a graph in a thousand segments took 8 GB, although it needs 0.2 GB.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 128 << 10)


@contextmanager
def freed_memory_returned() -> Generator[None]:
    """A context in which freed memory returns to the system; afterwards, it is kept again."""
    return_freed_memory()
    try:
        yield
    finally:
        keep_freed_memory()


def memory_in_use(device: torch.device) -> int:
    """Bytes in use now, as `peak_memory` counts them."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _process_memory("VmRSS")


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: torch's allocations on a GPU, otherwise that of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _process_memory("VmHWM")


def memory_of(device: torch.device, work: Callable[[], object]) -> int:
    """The peak bytes of the tensors that `work`, such as a training step, creates.

    They include tensors saved by autograd or by a gradient method, gradients, and temporaries.
    Weights, data and the optimiser's state exist before and are not counted. On a CPU, where a
    process's memory hardly ever falls, tensors are counted one by one; on a GPU, torch counts them.
    """
    if device.type == "cuda":
        synchronize(device)
        before = memory_in_use(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    alive = _Alive()
    with alive:
        work()
    return alive.peak


class _Alive(TorchDispatchMode):
    """Counts the bytes of the storages that operations have created and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage._cdata not in given:  # neither a view nor in place
                self._note(storage)
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._let_go, storage.nbytes())

    def _let_go(self, size: int) -> None:
        self.now -= size


def _storages(values: object) -> list[torch.UntypedStorage]:
    leaves = tree_leaves(values)
    return [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _process_memory(name: str) -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def environment(device: torch.device) -> dict[str, Any]:
    """Everything that the exact bits of a result may depend on in addition to its spec."""
    return {
        "host": socket.gethostname(),
        "device": device.type,
        "hardware": _hardware(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()

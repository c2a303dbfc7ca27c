"""Real launches, recorded on a machine without a GPU and compiled for any of them.

What is recorded is what a call of vqkernels launches: the same arguments, constants and options,
so that no list of kernels and variants has to be kept beside the code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch

from benchmarks.aot.architectures import PROCESSORS

_ALLOCATORS = ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty"))


@dataclasses.dataclass(frozen=True)
class Pointer:
    """What compilation asks a tensor for; the tensor itself need not be kept."""

    dtype: torch.dtype
    address: int

    def data_ptr(self) -> int:
        return self.address


class Launch(NamedTuple):
    """A kernel with everything that its compilation depends on."""

    function: Any  # triton's JITFunction
    arch: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]  # arguments and options

    @property
    def name(self) -> str:
        return str(self.function.__name__).strip("_").removesuffix("_kernel")

    @property
    def values(self) -> dict[str, Any]:
        """Every argument by name, defaults included."""
        bound = self.function.signature.bind(*self.arguments, **self._by_name())
        bound.apply_defaults()
        return dict(bound.arguments)

    @property
    def constants(self) -> dict[str, Any]:
        """The constexpr arguments by name."""
        values = self.values
        return {p.name: values[p.name] for p in self.function.params if p.is_constexpr}

    @property
    def options(self) -> dict[str, Any]:
        """What was given besides arguments: num_warps, enable_fp_fusion, ..."""
        by_name = self._by_name()
        return {name: value for name, value in self.keywords.items() if name not in by_name}

    def _by_name(self) -> dict[str, Any]:
        names = set(self.function.arg_names)
        return {name: value for name, value in self.keywords.items() if name in names}


class _Driver:
    """A driver of Triton for a GPU that is not there: it says which one, and launches nothing."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> str:
        return f"compiled ahead for {self._arch}"  # the key of what Triton keeps per device

    def get_current_stream(self, device: Any) -> int:
        return 0


@contextlib.contextmanager
def _driver(arch: int) -> Iterator[None]:
    from triton.runtime import driver

    before = driver._active
    driver.set_active(_Driver(arch))
    try:
        yield
    finally:
        driver._active = before


def record(arch: int, call: Callable[[], Any]) -> list[Launch]:
    """What ``call`` launches when tensors on the CPU are taken for tensors on such a GPU.

    Nothing runs: what a kernel would write is zero.
    """
    from triton.runtime.jit import JITFunction

    _modules()
    launches: list[Launch] = []

    def run(function: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        pointers = tuple(map(_pointer, arguments))
        by_name = {name: _pointer(value) for name, value in keywords.items()}
        launches.append(Launch(function, arch, pointers, by_name))

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(JITFunction, "run", run))
        stack.enter_context(_driver(arch))
        stack.enter_context(_on_a_gpu(arch))
        for owner, name in _ALLOCATORS:
            allocate = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, _zeroed(allocate)))
        call()
    return launches


def compiled(launch: Launch) -> Any:
    """Triton's compiled kernel for the architecture of the launch; ``.asm["cubin"]``, ..."""
    return compiled_together([launch])[0]


def compiled_together(launches: Sequence[Launch]) -> list[Any]:
    """``compiled`` of launches on one architecture.

    One after the other: in two threads Triton's compiler has crashed, and Python's parser, which
    counts its depth per process, has failed.
    """
    (arch,) = {launch.arch for launch in launches}
    with _driver(arch):
        return [
            launch.function.run(*launch.arguments, grid=None, warmup=True, **launch.keywords)
            for launch in launches
        ]


@contextlib.contextmanager
def _on_a_gpu(arch: int) -> Iterator[None]:
    """Ops take Triton for tensors on the CPU, and launchers see the GPU's properties."""
    from vqkernels.ops import dispatch

    def refusal(op: str, x: torch.Tensor) -> Any:
        if op in dispatch._ON_CUDA["triton"]:
            return None
        return ValueError, f"backend must be one that has {op}, got 'triton'"

    capability = divmod(arch, 10)
    properties = SimpleNamespace(
        major=capability[0],
        minor=capability[1],
        multi_processor_count=PROCESSORS[arch].multiprocessors,
        shared_memory_per_block_optin=PROCESSORS[arch].shared - 1024,
    )
    with (
        mock.patch.dict(dispatch._AVAILABLE, triton=refusal),
        mock.patch.dict(dispatch._ORDER, cpu=("triton", "reference")),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=capability),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=properties),
    ):
        yield


def _pointer(value: Any) -> Any:
    return Pointer(value.dtype, value.data_ptr()) if isinstance(value, torch.Tensor) else value


def _zeroed(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def zeroed(*arguments: Any, **keywords: Any) -> torch.Tensor:
        with torch.no_grad():
            return allocate(*arguments, **keywords).zero_()

    return zeroed


def kernels() -> list[Any]:
    """Every function of the Triton backend that is launched, not called by another one."""
    from triton.runtime.jit import JITFunction

    functions = [
        value
        for module in _modules()
        for value in vars(module).values()
        if isinstance(value, JITFunction) and value.module == module.__name__
    ]
    sources = [function.src for function in functions]
    calls = {f: sum(f"{f.__name__}(" in source for source in sources) for f in functions}
    return [function for function in functions if calls[function] == 1]  # its own "def"


def _modules() -> list[ModuleType]:
    """All of the backend: a decorator must not meet a replaced ``run`` at a first use."""
    package = importlib.import_module("vqkernels.backends.triton")
    found = pkgutil.iter_modules(package.__path__)
    return [importlib.import_module(f"{package.__name__}.{module.name}") for module in found]

"""A contender: what it is called, what it needs, and how it is set up for a case."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, memory

Call = Callable[[], Any]
# Of this machine's memory for one contender's N x K matrices.
_SHARE_OF_MEMORY = 0.5


class UnavailableError(Exception):
    """What ``build`` raises when this machine lacks something; the message says what."""


@dataclasses.dataclass(frozen=True)
class Provider:
    """One way of doing the job of a table.

    Attributes:
        name: what tables and rows call it.
        build: ``build(x, codebook, **settings)`` gets ready and returns a call without arguments
            that does the job once and returns the indices, shape (N,) or (N, levels), or what
            ``indices`` reads. ``settings`` are its own and the arguments of the case.
        package: the distribution whose version is recorded, or what is imported from it when
            it goes by several names.
        module: what is imported from it; a contender without its module is skipped.
        settings: ``settings(x, codebook)`` searches for the best keyword arguments of ``build``.
        facts: ``facts(x, codebook)``: what a row says of a case besides what everyone's does.
        indices: reads the indices off what a call returns, where that is something else; not
            timed.
        bytes_per_pair: of matrices with N x K entries, for the limit on memory.
        devices: device types that it runs on.
        largest: N * K beyond which it is left out of the run.
        full_only: left out of the short run.
        searches: what it does is the search, so that a share of the FMA peak says something.
        own_memory: it takes memory of a GPU past torch, where a peak cannot be read.
    """

    name: str
    build: Callable[..., Call]
    package: str = "torch"
    module: str = "torch"
    settings: Callable[[Tensor, Tensor], dict[str, Any]] = lambda x, codebook: {}
    facts: Callable[[Tensor, Tensor], dict[str, Any]] = lambda x, codebook: {}
    indices: Callable[[Any], Tensor] = lambda found: found
    bytes_per_pair: int = 0
    devices: tuple[str, ...] = ("cpu", "cuda")
    largest: int | None = None
    full_only: bool = False
    searches: bool = True
    own_memory: bool = False

    @property
    def ours(self) -> bool:
        return self.package == "vqkernels"

    def refusal(self, n: int, k: int, device: torch.device) -> str | None:
        """Why it cannot run on N rows and K codes here; None when it can."""
        if device.type not in self.devices:
            return f"does not run on {device.type}"
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"not installed: {error}"
        except (OSError, RuntimeError) as error:  # libraries or a driver that do not fit
            return f"not usable here: {error}"
        needed, limit = self.bytes_per_pair * n * k, _memory_limit(device)
        if needed > limit:
            return f"its N x K matrices take {needed / 1e9:.1f} GB, the limit is {limit / 1e9:.1f}"
        return None

    def version(self) -> str:
        return machine.version(self.package)


def _memory_limit(device: torch.device) -> float:
    if device.type == "cuda":
        return _SHARE_OF_MEMORY * torch.cuda.get_device_properties(device).total_memory
    return _SHARE_OF_MEMORY * memory.physical()

"""Quantizer: what the quantizers share, single ones and those that are made of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from vqkernels.distributed import Statistics
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.outputs import VQOutput

Learnt = list[tuple[LearnedCodebook, Statistics]]


class Quantizer(nn.Module, ABC):
    """A step, and the one place where what it has learnt is stored.

    A quantizer that is made of others runs their steps, not their forwards: however they are
    nested, the statistics of all codebooks come together in the outermost forward.
    """

    @abstractmethod
    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        """The output, and what the codebooks that are in training have learnt.

        They are initialised and moved first. Arguments are checked before anything changes.
        """

    @abstractmethod
    def _codebooks(self) -> list[LearnedCodebook]:
        """The codebooks, each once."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the nearest codes. Changes no state."""

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes."""

    @abstractmethod
    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation on x now; does nothing on initialised codebooks."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        out, learnt = self._step(x, mask)
        for codebook, statistics in learnt:
            codebook._store(statistics)
        return out

    def flush(self) -> None:
        """Moves the codebooks by whatever statistics are pending, due or not."""
        for codebook in self._codebooks():
            codebook._advance(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """All codebooks or none: torch loads child by child, and would stop half way."""
        misfits = [
            problem
            for name, module in self.named_modules(prefix=prefix.rstrip("."))
            if module is not self and isinstance(module, FullPrecision)
            for problem in module._misfits(state_dict, f"{name}.")
        ]
        if misfits:
            raise RuntimeError("; ".join(misfits))
        super()._load_from_state_dict(state_dict, prefix, *rest)

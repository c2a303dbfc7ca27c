"""prepare: a codebook with what the search derives from it. Part of the functional layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqkernels import _checks, ops


class PreparedCodebook:
    """A codebook that will not move, packed for the search; ``vqkernels.prepare`` makes one.

    It holds a copy of the codebook, so that writing to the original changes nothing here, and it
    carries no gradient. Functions take it wherever they take a codebook; the results are the same
    bits, and only the packing is saved.

    Attributes:
        codebook: (K, D), the copy, in the dtype of the original.
        metric: "l2" or "cosine"; the only one that it serves.
        backend: the one that was asked for, or None.
        parts: what the backend keeps, opaque; empty where the backend has nothing to keep.
    """

    __slots__ = ("backend", "codebook", "metric", "parts")

    def __init__(
        self, codebook: Tensor, metric: str, backend: str | None, parts: list[Tensor]
    ) -> None:
        self.codebook = codebook
        self.metric = metric
        self.backend = backend
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        # Packed again on arrival: the parts fit this machine only, and nobody should trust a file
        # with addresses.
        return _again, (self.codebook, self.metric, self.backend)

    def __repr__(self) -> str:
        k, d = self.codebook.shape
        dtype = str(self.codebook.dtype).removeprefix("torch.")
        return (
            f"PreparedCodebook({k}, {d}, metric={self.metric!r}, dtype={dtype}, "
            f"device={str(self.codebook.device)!r})"
        )


def prepare(
    codebook: Tensor, *, metric: str = "l2", backend: str | None = None
) -> PreparedCodebook:
    """Packs a codebook that will not move, for many searches with few vectors each.

    Every search packs what it searches in, or streams it where there are few vectors; this does it
    once. Modules do the same on their own while they evaluate.

    Args:
        codebook: (K, D); float32, float16 or bfloat16 (float64: nothing to pack). It is copied.
        metric: "l2" or "cosine": the one that the searches will use.
        backend: "native", "triton", "reference", or None for the first available one. Only
            "native" packs; with the others the result holds the codebook alone.

    Returns:
        A PreparedCodebook, accepted wherever a codebook is, at about three times its size.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``.
    """
    _checks.codebook(codebook)
    _checks.one_of("metric", metric, _checks.METRICS)
    kept = codebook.detach().clone(memory_format=torch.contiguous_format)
    codes = ops.normalize_codes(kept)[0] if metric == "cosine" else kept
    return PreparedCodebook(kept, metric, backend, ops.prepare(codes, metric, backend))


def _again(codebook: Tensor, metric: str, backend: str | None) -> PreparedCodebook:
    return prepare(codebook, metric=metric, backend=backend)

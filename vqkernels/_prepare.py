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
        cells: the number of cells that was asked for, or None.
        parts: what the backend keeps, opaque; empty where the backend has nothing to keep.
    """

    __slots__ = ("backend", "cells", "codebook", "metric", "parts")

    def __init__(
        self,
        codebook: Tensor,
        metric: str,
        backend: str | None,
        cells: int | None,
        parts: list[Tensor],
    ) -> None:
        self.codebook = codebook
        self.metric = metric
        self.backend = backend
        self.cells = cells
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        # Packed again on arrival: the parts fit this machine only, and nobody should trust a file
        # with addresses.
        return _again, (self.codebook, self.metric, self.backend, self.cells)

    def __repr__(self) -> str:
        k, d = self.codebook.shape
        dtype = str(self.codebook.dtype).removeprefix("torch.")
        return (
            f"PreparedCodebook({k}, {d}, metric={self.metric!r}, dtype={dtype}, "
            f"device={str(self.codebook.device)!r})"
        )


def prepare(
    codebook: Tensor, *, metric: str = "l2", backend: str | None = None, cells: int | None = None
) -> PreparedCodebook:
    """Packs a codebook that will not move, for many searches with few vectors each.

    Every search packs what it searches in, or streams it where there are few vectors; this does it
    once. Modules do the same on their own while they evaluate.

    A large codebook is also divided into cells of neighbouring codes, and a search leaves out
    cells that are too far away. With m_g the centre of cell g, m_j the nearest one to x and d =
    |m_j - m_g|, no code c of cell g is nearer to x than

        min over c of (|c - m_j|^2 - |c - m_g|^2) / 2d  +  (|x - m_g|^2 - |x - m_j|^2) / 2d

    (Hilbert exclusion, arXiv:1604.08640); with "cosine" x and c are directions. It is done where a
    sample of the vectors shows that it pays, and no result depends on it; ``explain`` says what
    share of the codes is looked at.

    Args:
        codebook: (K, D); float32, float16 or bfloat16 (float64: nothing to pack). It is copied.
        metric: "l2" or "cosine": the one that the searches will use.
        backend: "native", "triton", "reference", or None for the first available one. Only
            "native" packs unasked; "triton" keeps cells where ``cells`` is given and the metric is
            "l2"; else the result holds the codebook alone.
        cells: how many, in [0, K]; None takes about 1.25 sqrt(K) from a thousand codes on with
            "native", and none with the others; with 0 every search looks at every code.

    Returns:
        A PreparedCodebook, accepted wherever a codebook is, at about three times its size; with
        cells at five times, and 8 bytes for every pair of cells.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``.
    """
    _checks.codebook(codebook)
    _checks.one_of("metric", metric, _checks.METRICS)
    if cells is not None:
        _check_cells(cells, codebook)
    kept = codebook.detach().clone(memory_format=torch.contiguous_format)
    codes = ops.normalize_codes(kept)[0] if metric == "cosine" else kept
    parts = ops.prepare(codes, metric, backend, cells)
    return PreparedCodebook(kept, metric, backend, cells, parts)


def _check_cells(cells: int, codebook: Tensor) -> None:
    _checks.integer_at_least("cells", cells, 0)
    if cells > codebook.shape[0]:
        raise ValueError(
            f"cells must be at most the number of codes, {codebook.shape[0]}, got {cells}"
        )


def _again(
    codebook: Tensor, metric: str, backend: str | None, cells: int | None
) -> PreparedCodebook:
    return prepare(codebook, metric=metric, backend=backend, cells=cells)

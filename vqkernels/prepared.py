"""PreparedCodebook: a codebook with what the search derives from it, made once."""

from __future__ import annotations

from torch import Tensor


class PreparedCodebook:
    """A codebook that will not move, packed for the search; ``vqkernels.prepare`` makes one.

    It holds a copy of the codebook, so that writing to the original changes nothing here, and it
    carries no gradient. Functions take it wherever they take a codebook; the results are the same
    bits, and only the packing is saved.

    Attributes:
        codebook: (K, D), the copy, in the dtype of the original.
        metric: "l2" or "cosine"; the only one that it serves.
        parts: what the backend keeps, opaque; empty where the backend has nothing to keep.
    """

    __slots__ = ("codebook", "metric", "parts")

    def __init__(self, codebook: Tensor, metric: str, parts: list[Tensor]) -> None:
        self.codebook = codebook
        self.metric = metric
        self.parts = parts

    def __repr__(self) -> str:
        k, d = self.codebook.shape
        dtype = str(self.codebook.dtype).removeprefix("torch.")
        return (
            f"PreparedCodebook({k}, {d}, metric={self.metric!r}, dtype={dtype}, "
            f"device={str(self.codebook.device)!r})"
        )

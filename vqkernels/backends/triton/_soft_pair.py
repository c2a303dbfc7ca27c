"""What the kernels of a soft assignment read, and how they cut it into programs."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
from torch import Tensor

from vqkernels.backends.triton._centred import CHANNELS, centre_of, centred

_OWNERS = 64
_OTHERS = 64
_WARPS = 8
_PROGRAMS = 512  # some for every multiprocessor; fixed, so that the order of sums is no GPU's


class Split(NamedTuple):
    """Owners in tiles, and for each tile the others in pieces that are added afterwards.

    Attributes:
        tiles: of the owners.
        pieces: of the others, each ``share`` long but for the last.
    """

    tiles: int
    pieces: int
    share: int

    @property
    def blocks(self) -> dict[str, Any]:
        """The launches' constants."""
        return {"OWNERS": _OWNERS, "OTHERS": _OTHERS, "CHANNELS": CHANNELS, "num_warps": _WARPS}


class SoftPair(NamedTuple):
    """At least one row, and codes, about one centre.

    Attributes:
        rows: (N, W) float32, contiguous; W is D rounded up to CHANNELS, zero beyond D.
        codes: (K, W) float32, contiguous.
        row_bias: (N,) float64, |x|^2 / T; infinite for a row that is masked or not finite.
        code_bias: (K,) float32, |c|^2 / T; infinite for a code that is not finite.
        scale: 2 / T.
        dim: D.
    """

    rows: Tensor
    codes: Tensor
    row_bias: Tensor
    code_bias: Tensor
    scale: float
    dim: int

    def sides(self, rows_own: bool) -> tuple[Tensor, Tensor]:
        """(owners, others)."""
        return (self.rows, self.codes) if rows_own else (self.codes, self.rows)

    def split(self, rows_own: bool, slices: int = 1) -> Split:
        """Pieces that fill a GPU where ``slices`` programs per tile of owners would not.

        No more than _PROGRAMS in all, so that what they leave is O(owners) + O(1) vectors.
        """
        owners, others = map(len, self.sides(rows_own))
        tiles = triton.cdiv(owners, _OWNERS)
        pieces = max(1, _PROGRAMS // (tiles * slices))
        share = triton.cdiv(triton.cdiv(others, pieces), _OTHERS) * _OTHERS
        return Split(tiles, triton.cdiv(others, share), share)


def soft_pair(
    x: Tensor, codebook: Tensor, mask: Tensor | None, temperature: float, channel_dim: int
) -> SoftPair:
    """Reads both through their strides; ``mask`` has the shape of the positions."""
    centre = centre_of(codebook)
    rows, codes = centred(x, centre, channel_dim, mask), centred(codebook, centre, 1)
    return SoftPair(
        rows.vectors,
        codes.vectors,
        rows.biases(temperature),
        codes.biases(temperature).float(),
        2.0 / temperature,
        codebook.shape[1],
    )

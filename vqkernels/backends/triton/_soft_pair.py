"""What the kernels of a soft assignment read, and how they cut it into programs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from vqkernels.backends.triton._centred import CHANNELS, centred, frame_of

_OWNERS = 64
_OTHERS = 64
_WARPS = 8
_STAGES = 2  # with three, gradients spill on sm_100
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
        tile = {"OWNERS": _OWNERS, "OTHERS": _OTHERS, "CHANNELS": CHANNELS}
        return {**tile, "num_warps": _WARPS, "num_stages": _STAGES}


class Normalisers(NamedTuple):
    """What turns scores into probabilities, (N,) float32 each; see ``probabilities``.

    ``upper`` is scaled as the scores are, and infinite for a row of no part.
    """

    upper: Tensor
    lower: Tensor
    factor: Tensor


class SoftPair(NamedTuple):
    """At least one row, and codes, as ``Centred`` has them.

    Attributes:
        rows: (N, W) float32, contiguous.
        codes: (K, W) float32, contiguous.
        row_bias: (N,) float64, |x|^2 / T; infinite for a row that is masked or not finite.
        code_bias: (K,) float32, |c|^2 / 2 as scaled; infinite for a code that is not finite.
        scalars: (2,) float64: what makes a logit of a scaled product, and a gradient of a sum of
            scaled vectors.
        dim: D.
    """

    rows: Tensor
    codes: Tensor
    row_bias: Tensor
    code_bias: Tensor
    scalars: Tensor
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

    def normalisers(self, log_sums: Tensor, entropy: Tensor | None = None) -> Normalisers:
        """Of log sum_k exp(gain s_nk), (N,) float64.

        With the rows' entropies probabilities are relative to the mean logit, not to 1: those that
        matter are then exponentials of small numbers, which are rounded less.
        """
        gain = self.scalars[0]
        if entropy is None:
            entropy = torch.zeros_like(log_sums)
        base = log_sums - entropy
        upper = (base / gain).float()
        # Beyond 2^43 float64 has no such part left.
        lower = torch.where(base.abs() < 2.0**43, base - upper.double() * gain, 0.0)
        return Normalisers(upper, lower.float(), torch.exp(-entropy).float())


def soft_pair(
    x: Tensor, codebook: Tensor, mask: Tensor | None, temperature: float, channel_dim: int
) -> SoftPair:
    """Reads both through their strides; ``mask`` has the shape of the positions."""
    frame = frame_of(codebook)
    rows, codes = centred(x, frame, channel_dim, mask), centred(codebook, frame, 1)
    step = 2.0 / (frame.scale * temperature)
    gain = step / frame.scale
    return SoftPair(
        rows.vectors,
        codes.vectors,
        rows.half_squares * gain,
        codes.half_squares.float(),
        # All probabilities are equal long before the bound.
        torch.stack([gain.clamp(min=2.0**-100), step]),
        codebook.shape[1],
    )

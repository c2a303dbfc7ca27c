"""sample_rows in Triton: the rows of a residual quantizer's sample at its first level."""

from __future__ import annotations

from torch import Tensor

from vqkernels.backends.triton.sample_residuals import follow_rows


def sample_rows(
    x: Tensor, mask: Tensor | None, clock: Tensor, count: int, seed: int, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """``count`` rows in hashed order, float32, and how many at the front are usable."""
    rows, found, _ = follow_rows(x, None, None, mask, clock, count, seed, channel_dim)
    return rows[0], found

"""Where the channels of x lie, as the library's three flags say it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vqkernels import _checks
from vqkernels._masks import mask_from_lengths


@dataclass(frozen=True)
class Layout:
    """(B, N, C), or (B, C, N), (B, C, h, w), (B, C, d, h, w); a single token is (B, C) in all."""

    channel_last: bool
    accept_image_fmap: bool
    accept_3d_fmap: bool

    @property
    def channels_first(self) -> bool:
        return not self.channel_last or self.accept_image_fmap or self.accept_3d_fmap

    def rows(self, x: Tensor, dim: int) -> Tensor:
        """x with the channels last, a view.

        Raises:
            TypeError, ValueError: x is no floating tensor with ``dim`` channels in that place.
        """
        _checks.floating("x", x)
        wanted = 4 if self.accept_image_fmap else 5 if self.accept_3d_fmap else None
        if x.ndim < 2 or (wanted is not None and x.ndim != wanted):
            count = "at least 2" if wanted is None else str(wanted)
            raise ValueError(f"x must have {count} dimensions, got shape {tuple(x.shape)}")
        rows = self.last(x)
        if rows.shape[-1] != dim:
            channel = 1 if self.channels_first and x.ndim > 2 else x.ndim - 1
            raise ValueError(
                f"x must have size {dim} in dimension {channel}, got shape {tuple(x.shape)}"
            )
        return rows

    def last(self, x: Tensor) -> Tensor:
        """Moves the channels of x to the end."""
        return x.movedim(1, -1) if self.channels_first and x.ndim > 2 else x

    def back(self, rows: Tensor, x: Tensor) -> Tensor:
        """Vectors at the positions of x, and perhaps several each, with the channels as in x."""
        return rows.movedim(-1, 1) if self.channels_first and x.ndim > 2 else rows


def valid_positions(mask: Tensor | None, lens: Tensor | None, rows: Tensor) -> Tensor | None:
    """The mask over the positions of ``rows``, checked; ``lens`` are those of padded sequences."""
    if lens is not None:
        if mask is not None:
            raise ValueError("lens must be None with a mask, got both")
        if rows.ndim != 3:
            raise ValueError(f"lens must come with x of 3 dimensions, got {rows.ndim}")
        _checks.shaped("lens", lens, (rows.shape[0],))
        mask = mask_from_lengths(lens, rows.shape[1])
    _checks.mask(mask, rows, tuple(rows.shape[:-1]))
    return mask


def only_valid(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros under the mask: a NaN there would reach the gradients of a projection."""
    return rows if mask is None else torch.where(mask[..., None], rows, 0.0)

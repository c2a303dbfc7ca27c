"""Several heads: parts of a vector that are quantized on their own."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import _checks, functional


def split(z: Tensor, heads: int, separate: bool) -> list[Tensor]:
    """What each table quantizes: its own head, or all of them as one more dimension of positions.

    Views of z, (*positions, heads * D).
    """
    if heads == 1:
        return [z]
    parts = z.unflatten(-1, (heads, -1))
    return list(parts.unbind(-2)) if separate else [parts]


def of_every_head(mask: Tensor | None, heads: int, separate: bool) -> Tensor | None:
    """The mask over the positions of what ``split`` returns."""
    if mask is None or heads == 1 or separate:
        return mask
    return mask[..., None].expand(*mask.shape, heads)


def joined(parts: list[Tensor], heads: int) -> Tensor:
    """The inverse of ``split``."""
    vectors = parts[0] if len(parts) == 1 else torch.stack(parts, dim=-2)
    return vectors if heads == 1 else vectors.flatten(-2)


def joined_indices(parts: list[Tensor]) -> Tensor:
    """(*positions), or (*positions, heads)."""
    return parts[0] if len(parts) == 1 else torch.stack(parts, dim=-1)


def looked_up(indices: Tensor, embed: Tensor, heads: int) -> Tensor:
    """(*positions, D), or (*positions, heads, D), of the tables (H, K, D). -1 gives zeros."""
    if len(embed) == 1:
        return functional.lookup(indices, embed[0], channel_dim=-1)
    _checks.integers("indices", indices)
    if indices.shape[-1:] != (heads,):
        raise ValueError(
            f"indices must have shape (*positions, {heads}), got {tuple(indices.shape)}"
        )
    parts = zip(indices.unbind(-1), embed, strict=True)
    codes = [functional.lookup(part, table, channel_dim=-1) for part, table in parts]
    return torch.stack(codes, dim=-2)

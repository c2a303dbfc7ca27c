"""Images of vectors near the codes of a codebook."""

from __future__ import annotations

import torch
from compat.agreement import assert_in_one_band, with_margin
from torch import Tensor, nn

SIDE = 8


def near(codebook: Tensor, seed: int = 0, batch: int = 2) -> Tensor:
    """(batch, D, 8, 8) whose nearest codes no rounding can change."""
    rows = with_margin(codebook.detach(), batch * SIDE * SIDE, seed)
    return rows.view(batch, SIDE, SIDE, -1).permute(0, 3, 1, 2).contiguous()


def rows_of(images: Tensor) -> Tensor:
    """(B*H*W, D) in the order of flattened indices."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def twins(ours: nn.Module, theirs: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both, ours with the state of theirs, by a strict load."""
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def settled(module: nn.Module, codes: str, size: str, sums: str, rows_per_code: float) -> None:
    """Sets averages to what training would have made of the present codes."""
    state = module.state_dict()
    state[size] = torch.full_like(state[size], rows_per_code)
    state[sums] = state[codes] * rows_per_code
    module.load_state_dict(state)


def assert_alike(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    """Integers equal, everything else in one band."""
    for one, other in zip(ours, theirs, strict=True):
        if other.is_floating_point():
            assert_in_one_band(one, other)
        else:
            assert torch.equal(one, other)

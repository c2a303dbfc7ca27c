"""What the libraries that hold N x K matrices have in common, in plain torch.

As many of them as there, and as many passes over them: the specimens are timed too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(images: Tensor) -> Tensor:
    """(B, D, H, W) to (B, H, W, D)."""
    return images.permute(0, 2, 3, 1).contiguous()


def images_of(rows: Tensor) -> Tensor:
    return rows.permute(0, 3, 1, 2).contiguous()


def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Argmin of |x|^2 + |c|^2 - 2 x.c in the dtype of the rows."""
    squares = rows.square().sum(1, keepdim=True) + codebook.square().sum(1)
    return (squares - 2 * (rows @ codebook.T)).argmin(1)


def one_hot(indices: Tensor, num_codes: int, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(len(indices), num_codes, dtype=dtype, device=indices.device)
    return zeros.scatter_(1, indices[:, None], 1)


def perplexity(encodings: Tensor) -> Tensor:
    share = encodings.mean(0)
    return (-(share * (share + 1e-10).log()).sum()).exp()


def mse(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().mean()


def straight_through(x: Tensor, codes: Tensor) -> Tensor:
    return x + (codes - x).detach()

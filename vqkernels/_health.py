"""How well a codebook is used, from the counts that its updates leave behind."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.options import Revive
from vqkernels.outputs import CodebookHealth

_WINDOW = 100  # rows per code


def codebook_health(
    cluster_size: Tensor,
    idle: Tensor,
    pending_counts: Tensor,
    revived: Tensor,
    frozen: Tensor | None,
    revive: Revive | None,
    window: int | None,
) -> CodebookHealth:
    """CodebookHealth of (K,) statistics; ``window`` is in rows, None is 100 per code."""
    k = len(idle)
    rows = _WINDOW * k if window is None else window
    pending = pending_counts.long()
    waited = torch.where(pending > 0, 0, idle + pending.sum())
    sizes = cluster_size.double()
    share = sizes / sizes.sum()
    dead = torch.zeros_like(idle, dtype=torch.bool)
    if revive is not None:
        dead = sizes < (sizes.mean() / 4).clamp(max=revive.threshold)
        if revive.age is not None:
            dead |= waited >= revive.age * k
    if frozen is not None:
        dead &= frozen == 0
    return CodebookHealth(
        window=rows,
        active=int((waited < rows).sum()),
        ceiling=k * (1.0 - (1.0 - 1.0 / k) ** rows),
        perplexity=float(torch.exp(-torch.special.xlogy(share, share).sum())),
        dead=int(dead.sum()),
        revived=int(revived),
    )

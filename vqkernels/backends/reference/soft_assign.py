"""soft_assign: the log-normaliser and the mean logit of every row, and the mass of every code."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels._numerics import wide
from vqkernels.backends.reference._soft_blocks import SoftBlocks, soft_blocks


def soft_assign(
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    temperature: float,
    channel_dim: int,
    usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """With l_nk = -|x_n - c_k|^2 / temperature and p_n = softmax(l_n).

    Returns (logsumexp, mean_logit, usage): ``log sum_k exp l_nk`` and ``sum_k p_nk l_nk`` in
    float64, positions of x, and ``sum_n p_nk`` in wide, (K,) or (0,). A row that is masked or not
    finite, and every row when no code is finite, has 0 and counts nowhere.
    """
    blocks = soft_blocks(x, codebook, mask, temperature, channel_dim)
    normaliser, mean = (blocks.rows.new_zeros(len(blocks.rows)) for _ in range(2))
    for here in blocks.row_blocks():
        normaliser[here], mean[here] = _online(blocks, here)
    mass = blocks.codes.new_zeros(len(blocks.codes) if usage else 0)
    if usage:
        for here in blocks.row_blocks():
            for there in blocks.code_blocks():
                mass[there] += blocks.probabilities(here, there, normaliser)[0].sum(dim=0)
    shape = row_shape(x, channel_dim)
    dtype = wide(x.dtype, codebook.dtype)
    return normaliser.reshape(shape), mean.reshape(shape), mass.to(dtype)


def _online(blocks: SoftBlocks, here: slice) -> tuple[Tensor, Tensor]:
    """The two results of some rows in one pass over the codes (arXiv 1805.02867)."""
    rows = blocks.rows[here]
    largest = rows.new_full((len(rows), 1), -torch.inf)
    total = weighted = rows.new_zeros(len(rows), 1)
    for there in blocks.code_blocks():
        logits = blocks.logits(here, there)
        new = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
        base = torch.where(new.isfinite(), new, 0.0)
        shrink, grown = (largest - base).exp(), (logits - base).exp()
        total = total * shrink + grown.sum(dim=1, keepdim=True)
        products = grown * torch.where(grown > 0, logits, 0.0)
        weighted = weighted * shrink + products.sum(dim=1, keepdim=True)
        largest = new
    counts = blocks.valid[here] & (total > 0)[:, 0]
    safe = torch.where(total > 0, total, 1.0)
    normaliser, mean = (base + safe.log())[:, 0], (weighted / safe)[:, 0]
    return torch.where(counts, normaliser, 0.0), torch.where(counts, mean, 0.0)

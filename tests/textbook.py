"""A vector quantizer as papers and tutorials write it: N x K distances, one-hot, autograd.

Imports nothing of vqkernels. Used in float64 as the truth, and in the tested dtype as the
yardstick of what plain PyTorch would lose.

van den Oord et al. 2017 (arXiv 1711.00937), equations 1 to 3 and appendix A.1; rotation trick:
Fifty et al. 2024 (arXiv 2410.06424).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Quantized(NamedTuple):
    quantized: Tensor  # (N, D), carries the estimator's gradient
    indices: Tensor  # (N,), -1 where masked
    loss: Tensor
    mse: Tensor
    counts: Tensor  # (K,)
    sums: Tensor  # (K, D)


def distances(x: Tensor, codebook: Tensor, metric: str = "l2") -> Tensor:
    """(N, K): squared distances, or minus the cosine-style score of the normalised codebook."""
    if metric == "cosine":
        return -(x @ F.normalize(codebook, dim=1).T)
    return (x[:, None, :] - codebook[None, :, :]).square().sum(dim=2)


def quantize(
    x: Tensor,
    codebook: Tensor,
    *,
    commitment_weight: float = 0.25,
    codebook_weight: float = 1.0,
    estimator: str = "straight_through",
    metric: str = "l2",
    mask: Tensor | None = None,
    indices: Tensor | None = None,
) -> Quantized:
    """One step on the rows of x (N, D). ``indices`` overrides the assignment (ties)."""
    if indices is None:
        indices = distances(x.detach(), codebook.detach(), metric).argmin(dim=1)
    keep = torch.ones(len(x), dtype=torch.bool) if mask is None else mask
    source, codes = x, codebook
    if metric == "cosine":
        source, codes = F.normalize(x, dim=1, eps=1e-12), F.normalize(codebook, dim=1)
    one_hot = F.one_hot(indices.clamp(min=0), len(codebook)).to(x.dtype) * keep[:, None]
    chosen = one_hot @ codes

    valid, valid_chosen = source[keep], chosen[keep]
    if len(valid):
        commitment = F.mse_loss(valid, valid_chosen.detach())
        codebook_term = F.mse_loss(valid_chosen, valid.detach())
    else:
        commitment = codebook_term = (source * 0.0).sum() + (chosen * 0.0).sum()
    if estimator == "rotation":
        passed = rotate(source, chosen.detach())
    else:
        passed = source + (chosen - source).detach()
    return Quantized(
        quantized=torch.where(keep[:, None], passed, x),
        indices=torch.where(keep, indices, -1),
        loss=commitment_weight * commitment + codebook_weight * codebook_term,
        mse=commitment.detach(),
        counts=one_hot.detach().sum(dim=0),
        sums=one_hot.detach().T @ source.detach(),
    )


def residual_quantize(
    x: Tensor,
    codebooks: list[Tensor],
    *,
    indices: Tensor,
    commitment_weight: float = 0.25,
    codebook_weight: float = 1.0,
    estimator: str = "straight_through",
    mask: Tensor | None = None,
    kept: Tensor | None = None,
) -> Quantized:
    """``quantize`` level by level on the rows of x (N, D), with the given (N, L) indices.

    One estimator between x and the sum of the codes; losses are added, the rest is stacked. Row n
    takes part in the first ``kept[n]`` levels; every mean is over the rows that are not masked.
    """
    keep = torch.ones(len(x), dtype=torch.bool) if mask is None else mask
    kept = torch.full((len(x),), len(codebooks)) if kept is None else kept
    weights = {"commitment_weight": commitment_weight, "codebook_weight": codebook_weight}
    left, total, levels = x, torch.zeros_like(x), []
    for number, (chosen, codes) in enumerate(zip(indices.T, codebooks, strict=True)):
        taking = keep & (kept > number)
        level = quantize(left, codes, indices=chosen, mask=taking, **weights)
        share = taking.sum() / keep.sum().clamp(min=1)
        levels.append(level._replace(loss=level.loss * share, mse=level.mse * share))
        vectors = torch.where(taking[:, None], codes.detach()[chosen.clamp(min=0)], 0.0)
        left, total = left - vectors, total + vectors
    passed = rotate(x, total) if estimator == "rotation" else x + (total - x).detach()
    return Quantized(
        quantized=torch.where(keep[:, None], passed, x),
        indices=torch.stack([level.indices for level in levels], dim=1),
        loss=torch.stack([level.loss for level in levels]).sum(),
        mse=torch.stack([level.mse for level in levels]),
        counts=torch.stack([level.counts for level in levels]),
        sums=torch.stack([level.sums for level in levels]),
    )


def rotate(x: Tensor, q: Tensor) -> Tensor:
    """Takes x to q by a rotation in their plane and a scaling, both constant in the gradient."""
    x_hat, q_hat = F.normalize(x.detach(), dim=1), F.normalize(q, dim=1)
    r = F.normalize(x_hat + q_hat, dim=1)
    scale = q.norm(dim=1, keepdim=True) / x.detach().norm(dim=1, keepdim=True)
    along_r = (x * r).sum(dim=1, keepdim=True)
    along_x = (x * x_hat).sum(dim=1, keepdim=True)
    return scale * (x - 2.0 * along_r * r + 2.0 * along_x * q_hat)


def ema(
    cluster_size: Tensor,
    embed_sum: Tensor,
    counts: Tensor,
    sums: Tensor,
    decay: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(codebook, cluster_size, embed_sum) after one update, as in the public implementations."""
    cluster_size = cluster_size * decay + counts * (1 - decay)
    embed_sum = embed_sum * decay + sums * (1 - decay)
    total = cluster_size.sum()
    smoothed = (cluster_size + epsilon) / (total + len(cluster_size) * epsilon) * total
    return embed_sum / smoothed.unsqueeze(1), cluster_size, embed_sum


def perplexity(counts: Tensor) -> Tensor:
    probabilities = counts.double() / counts.sum()
    return torch.exp(-(probabilities * torch.log(probabilities + 1e-300)).sum())


class Soft(NamedTuple):
    logsumexp: Tensor  # (N,), 0 where the row does not count
    mean_logit: Tensor  # (N,), the same
    usage: Tensor  # (K,), sum of the probabilities of the rows that count


def soft_logits(x: Tensor, codebook: Tensor, temperature: float) -> Tensor:
    """(N, K): -|x - c|^2 / temperature. In float64 by differences; else, as one would write it,
    expanded about the mean of the codes; -inf for codes that are not finite."""
    usable = codebook.detach().isfinite().all(dim=1)
    codes = torch.where(usable[:, None], codebook, 0.0)
    if x.dtype == torch.float64:
        squared = torch.stack([(row - codes).square().sum(dim=1) for row in x])
    else:
        centre = codes.detach().sum(dim=0) / usable.sum().clamp(min=1)
        y, e = x - centre, codes - centre
        squared = y.square().sum(dim=1, keepdim=True) + e.square().sum(dim=1) - 2.0 * (y @ e.T)
    return torch.where(usable, -squared / temperature, -torch.inf)


def soft_assign(
    x: Tensor, codebook: Tensor, temperature: float, mask: Tensor | None = None
) -> Soft:
    """The softmax over all codes, and what is summed of it. With at least one finite code."""
    counts = x.detach().isfinite().all(dim=1)
    counts = counts if mask is None else counts & mask
    logits = soft_logits(torch.where(counts[:, None], x, 0.0), codebook, temperature)
    p = logits.softmax(dim=1)
    products = torch.where(p > 0, p * torch.where(p > 0, logits, 0.0), 0.0)
    return Soft(
        torch.where(counts, logits.logsumexp(dim=1), 0.0),
        torch.where(counts, products.sum(dim=1), 0.0),
        (p * counts[:, None]).sum(dim=0),
    )

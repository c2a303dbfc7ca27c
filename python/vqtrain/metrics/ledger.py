"""The ledger: every bit that a tokenizer and a prior need to transmit held-out images.

    total = reconstruction + prior = [ -log2 p(x | z, y) - log2 p(z | y) ] / (C * H * W)

with z = encode(x). Since z is a function of x, this is an upper bound on -log2 p(x | y) per
dimension, and a code length: send z with the prior, then x given z. Beside the prior stand two
cheaper ways to send z: uniform (log2 K each) and unigram (code frequencies of the clean training
set, positions ignored).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vqtrain.codes import CodeSet
from vqtrain.data.dataset import Split
from vqtrain.models.tokenizer import Codes, Tokenizer
from vqtrain.priors.prior import Prior

BITS = 1 / math.log(2)  # nats to bits


class Ledger(NamedTuple):
    """Bits per dimension, except `per_image`.

    Attributes:
        total: reconstruction + prior.
        recon: -log2 p(x | z, y).
        prior: -log2 p(z | y) under the prior.
        unigram: the codes' cost under their training frequencies.
        uniform: the codes' cost at log2 K each.
        standard_error: of `total`, from its spread over images.
    """

    total: float
    recon: float
    prior: float
    unigram: float
    uniform: float
    standard_error: float


def ledger(
    tokenizer: Tokenizer, priors: list[Prior], items: Split, codes: CodeSet, train_codes: Codes
) -> Ledger:
    """Measures held-out items.

    Args:
        tokenizer: in eval mode.
        priors: in eval mode, of the same tokenizer, top level first.
        items: held-out clean items.
        codes: their codes, in the same order.
        train_codes: clean training codes of each level, for the unigram.

    Raises:
        ValueError: if codes and items are not of the same rows.
    """
    if not torch.equal(items.rows, codes.rows):
        raise ValueError("codes must be of the same rows as items, got others: extract again")
    scale = BITS / tokenizer.signal.dims
    levels = tuple(level.long() for level in codes.codes)
    recon = tokenizer.nll(items.x, items.labels, levels) * scale
    coded = torch.zeros_like(recon)
    unigram_bits = torch.zeros_like(recon, dtype=torch.float64)
    uniform = 0.0
    for i, (prior, size) in enumerate(zip(priors, tokenizer.codebook_sizes, strict=True)):
        coded = coded + prior.nll(levels[i], codes.labels, levels[:i]) * scale
        frequencies = unigram(train_codes[i], size)
        unigram_bits -= frequencies[levels[i]].log().flatten(1).sum(1) * scale
        uniform += levels[i][0].numel() * math.log(size) * scale
    total = (recon + coded).double()
    return Ledger(
        total=total.mean().item(),
        recon=recon.mean().item(),
        prior=coded.mean().item(),
        unigram=unigram_bits.mean().item(),
        uniform=uniform,
        standard_error=(total.std() / math.sqrt(len(total))).item(),
    )


def unigram(codes: Tensor, num_embeddings: int) -> Tensor:
    """`(K,)` code frequencies, with add-1 smoothing: an unseen code costs finitely many bits."""
    counts = torch.bincount(codes.flatten().long(), minlength=num_embeddings).double() + 1
    return counts / counts.sum()


class CodeUsage(NamedTuple):
    """How much of the codebook is used.

    Attributes:
        counts: `(K,)` int64.
        used: share of codes that occur.
        ceiling: expected share if all codes were equally likely, 1 - (1 - 1/K)^N for N codes.
        perplexity: 2 to the entropy of the counts, in 1 .. K.
    """

    counts: Tensor
    used: float
    ceiling: float
    perplexity: float


def code_usage(codes: Tensor, num_embeddings: int) -> CodeUsage:
    """Usage over a whole split, not over a batch: perplexity of a batch depends on its size."""
    counts = torch.bincount(codes.flatten().long(), minlength=num_embeddings)
    p = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(p, p).sum()
    return CodeUsage(
        counts=counts,
        used=(counts > 0).double().mean().item(),
        ceiling=1 - (1 - 1 / num_embeddings) ** codes.numel(),
        perplexity=entropy.exp().item(),
    )


def conditioning_gap(priors: list[Prior], codes: CodeSet, num_classes: int) -> float:
    """How much the priors listen to the label: E[log2 p(z|y) - log2 mean over y' of p(z|y')].

    Returns:
        Bits per item; at most log2(num_classes), and 0 for priors that ignore the label.
    """
    levels = tuple(level.long() for level in codes.codes)
    log_p = torch.stack(
        [-_nll(priors, levels, torch.full_like(codes.labels, y)) for y in range(num_classes)]
    )
    own = log_p.gather(0, codes.labels[None])[0]
    mixture = log_p.logsumexp(0) - math.log(num_classes)
    return ((own - mixture).mean() * BITS).item()


def _nll(priors: list[Prior], levels: Codes, labels: Tensor) -> Tensor:
    """`(B,)` nats of all levels."""
    parts = [prior.nll(levels[i], labels, levels[:i]) for i, prior in enumerate(priors)]
    return torch.stack(parts).sum(0)

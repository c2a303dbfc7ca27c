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
from vqtrain.data import ImageSet
from vqtrain.models import VQVAE, GatedPixelCNN

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
    tokenizer: VQVAE, prior: GatedPixelCNN, images: ImageSet, codes: CodeSet, train_codes: Tensor
) -> Ledger:
    """Measures held-out images.

    Args:
        tokenizer: in eval mode.
        prior: in eval mode, of the same tokenizer.
        images: held-out clean images.
        codes: their codes, in the same order.
        train_codes: `(N, h, w)` clean training codes, for the unigram.

    Raises:
        ValueError: if codes and images are not of the same rows.
    """
    if not torch.equal(images.rows, codes.rows):
        raise ValueError("codes must be of the same rows as images, got others: extract again")
    dims, grid = images.images[0].numel(), codes.codes[0].numel()
    recon = tokenizer.nll(images.images, images.labels, codes.codes.long()) * BITS / dims
    coded = prior.nll(codes.codes, codes.labels) * BITS / dims
    frequencies = unigram(train_codes, tokenizer.config.num_embeddings)
    unigram_bits = -frequencies[codes.codes.long()].log2().flatten(1).sum(1) / dims
    total = (recon + coded).double()
    return Ledger(
        total=total.mean().item(),
        recon=recon.mean().item(),
        prior=coded.mean().item(),
        unigram=unigram_bits.mean().item(),
        uniform=grid * math.log2(tokenizer.config.num_embeddings) / dims,
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


def conditioning_gap(prior: GatedPixelCNN, codes: CodeSet, num_classes: int) -> float:
    """How much the prior listens to the label: E[log2 p(z|y) - log2 mean over y' of p(z|y')].

    Returns:
        Bits per image; at most log2(num_classes), and 0 for a prior that ignores the label.
    """
    log_p = torch.stack(
        [-prior.nll(codes.codes, torch.full_like(codes.labels, y)) for y in range(num_classes)]
    )
    own = log_p.gather(0, codes.labels[None])[0]
    mixture = log_p.logsumexp(0) - math.log(num_classes)
    return ((own - mixture).mean() * BITS).item()

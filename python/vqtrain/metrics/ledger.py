"""The ledger: every bit that a tokenizer and its priors need to transmit held-out items.

    total = reconstruction + prior
          = [ -log2 p(x | z, y) - sum over levels l of log2 p(z_l | z_above, y) ] / dims

with z = encode(x), dims = channels times positions. Since z is a function of x, this is an upper
bound on -log2 p(x | y) per dimension (van den Oord et al. 2017, arXiv 1711.00937, section 3.2),
and a code length: send z with the priors, then x given z. Beside each prior stand cheaper ways to
send the same codes: uniform, unigram and zstd (`vqtrain.metrics.coders`).

A number that does not exist is None: the reconstruction of a decoder without a likelihood, the
prior bits of a masked prior, and any sum that one of them is part of.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtrain.data.dataset import Split
from vqtrain.metrics.coders import uniform_bits, zstd_bits
from vqtrain.metrics.estimate import estimate
from vqtrain.models.tokenizer import Codes, Size, Tokenizer
from vqtrain.priors.prior import Prior

BITS = 1 / math.log(2)  # nats to bits
BATCH = 256


@dataclass(frozen=True)
class LevelLedger:
    """One level of codes, top first in `Ledger.levels`.

    Attributes:
        num_embeddings: K.
        grid: lengths of its axes.
        prior_bpd: bits of the prior, per dimension of the signal.
        prior_bits_per_code: the same per code.
        masked_bits_per_code: cross-entropy of masked codes given the visible ones, under fixed
            masks; no code length, and None for priors that have one.
        unigram_bpd: bits under the code frequencies of the training items.
        uniform_bpd: bits at log2 K each.
        zstd_bpd: bits of the split as one zstd stream; None without `zstandard`.
    """

    num_embeddings: int
    grid: Size
    prior_bpd: float | None
    prior_bits_per_code: float | None
    masked_bits_per_code: float | None
    unigram_bpd: float
    uniform_bpd: float
    zstd_bpd: float | None


@dataclass(frozen=True)
class Ledger:
    """Bits per dimension of one split.

    Attributes:
        items: items measured.
        dims: dimensions of an item.
        total_bpd: reconstruction + prior.
        recon_bpd: -log2 p(x | z, y).
        prior_bpd: of all levels together; so the three below.
        unigram_bpd: the codes' cost under their training frequencies.
        uniform_bpd: the codes' cost at log2 K each.
        zstd_bpd: the codes' cost as zstd streams.
        total_standard_error: of the total, from its spread over items; so the two below.
        recon_standard_error: of the reconstruction.
        prior_standard_error: of the prior.
        levels: each level alone, top first.
    """

    items: int
    dims: int
    total_bpd: float | None
    recon_bpd: float | None
    prior_bpd: float | None
    unigram_bpd: float
    uniform_bpd: float
    zstd_bpd: float | None
    total_standard_error: float | None
    recon_standard_error: float | None
    prior_standard_error: float | None
    levels: tuple[LevelLedger, ...]


@torch.no_grad()
def ledger(
    tokenizer: Tokenizer,
    priors: Sequence[Prior],
    items: Split,
    codes: Codes,
    frequencies: Sequence[Tensor],
) -> Ledger:
    """Measures one split.

    Args:
        tokenizer: in eval mode.
        priors: one per level, top first, in eval mode; empty before any was trained.
        items: clean items.
        codes: their codes, one `(N, *grid)` tensor per level, in the same order.
        frequencies: `(K,)` code frequencies of each level on the training items.

    Raises:
        ValueError: if priors, codes and frequencies are not one per level.
    """
    levels = len(tokenizer.codebook_sizes)
    if len(codes) != levels or len(frequencies) != levels or len(priors) not in (0, levels):
        raise ValueError(
            f"codes, frequencies and priors must be {levels}, one per level, "
            f"got {len(codes)}, {len(frequencies)} and {len(priors)}"
        )
    dims = tokenizer.signal.dims
    recon = _bpd(reconstruction_nats(tokenizer, items, codes), dims)
    by_level = [_bpd(nats, dims) for nats in prior_nats(priors, codes, items.labels)]
    prior = _sum(by_level) if priors else None
    total = _sum([recon, prior])
    entries = tuple(
        _level(
            *(tokenizer.codebook_sizes[level], tokenizer.code_grids[level], dims),
            *(codes[level], frequencies[level]),
            prior_bpd=_mean(by_level[level]) if priors else None,
            masked_bits_per_code=_masked(priors, level, codes, items.labels),
        )
        for level in range(levels)
    )
    zstd = [entry.zstd_bpd for entry in entries if entry.zstd_bpd is not None]
    return Ledger(
        items=len(items.labels),
        dims=dims,
        total_bpd=_mean(total),
        recon_bpd=_mean(recon),
        prior_bpd=_mean(prior),
        unigram_bpd=sum(entry.unigram_bpd for entry in entries),
        uniform_bpd=sum(entry.uniform_bpd for entry in entries),
        zstd_bpd=sum(zstd) if len(zstd) == levels else None,
        total_standard_error=_error(total),
        recon_standard_error=_error(recon),
        prior_standard_error=_error(prior),
        levels=entries,
    )


def reconstruction_nats(tokenizer: Tokenizer, items: Split, codes: Codes) -> Tensor | None:
    """`(N,)` -log p(x | z, y) of each item; None without a likelihood."""
    if not tokenizer.likelihood.has_likelihood:
        return None
    parts = [
        tokenizer.nll(items.x[rows], items.labels[rows], _rows(codes, rows))
        for rows in torch.arange(len(items.labels)).split(BATCH)
    ]
    return torch.cat(parts)


def prior_nats(priors: Sequence[Prior], codes: Codes, labels: Tensor) -> list[Tensor | None]:
    """Of each level, `(N,)` -log p(z_l | z_above, y); None for a prior without a likelihood."""
    return [
        torch.cat(
            [
                prior.nll(codes[level][rows].long(), labels[rows], _rows(codes[:level], rows))
                for rows in torch.arange(len(labels)).split(BATCH)
            ]
        )
        if prior.exact_likelihood
        else None
        for level, prior in enumerate(priors)
    ]


def _masked(priors: Sequence[Prior], level: int, codes: Codes, labels: Tensor) -> float | None:
    if not priors or priors[level].exact_likelihood:
        return None
    losses = [
        priors[level].validation_loss(
            codes[level][rows].long(), labels[rows], _rows(codes[:level], rows)
        )
        for rows in torch.arange(len(labels)).split(BATCH)
    ]
    return torch.cat(losses).double().mean().item() * BITS


def _level(
    num_embeddings: int,
    grid: Size,
    dims: int,
    codes: Tensor,
    frequencies: Tensor,
    *,
    prior_bpd: float | None,
    masked_bits_per_code: float | None,
) -> LevelLedger:
    share = math.prod(grid) / dims  # codes per dimension
    unigram_bits = -frequencies.log2()[codes.long()].mean().item()
    zstd = zstd_bits(codes, num_embeddings)
    return LevelLedger(
        num_embeddings=num_embeddings,
        grid=grid,
        prior_bpd=prior_bpd,
        prior_bits_per_code=None if prior_bpd is None else prior_bpd / share,
        masked_bits_per_code=masked_bits_per_code,
        unigram_bpd=unigram_bits * share,
        uniform_bpd=uniform_bits(num_embeddings) * share,
        zstd_bpd=None if zstd is None else zstd * share,
    )


def _rows(codes: Codes, rows: Tensor) -> Codes:
    return tuple(level[rows].long() for level in codes)


def _bpd(nats: Tensor | None, dims: int) -> Tensor | None:
    return None if nats is None else nats.double() * (BITS / dims)


def _mean(values: Tensor | None) -> float | None:
    return None if values is None else estimate(values).mean


def _error(values: Tensor | None) -> float | None:
    return None if values is None else estimate(values).standard_error


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Item by item; None if a part is missing."""
    present = [part for part in parts if part is not None]
    return torch.stack(present).sum(0) if len(present) == len(parts) else None

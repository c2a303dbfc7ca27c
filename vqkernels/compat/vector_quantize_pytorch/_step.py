"""One forward on vectors that have been projected and split into heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vqkernels import functional, ops
from vqkernels._nearest_codes import search_many
from vqkernels.compat.vector_quantize_pytorch._codebook import Codebook
from vqkernels.compat.vector_quantize_pytorch._learning import Learnt
from vqkernels.distributed import Statistics


class Step(NamedTuple):
    """What a step returns, one entry per table.

    Attributes:
        quantized: (*positions, D), or (*positions, k, D) with k codes each.
        indices: int64 (*positions), or (*positions, k); -1 where masked.
        errors: mean squared difference from the codes: 0-d, the mean over all tables, or
            (*positions, k) and 0 where masked. Differentiable.
        counts: int64 (K,), rows of the first table that chose each code; None with k codes.
        learnt: for ``learn``; None where nothing was.
    """

    quantized: list[Tensor]
    indices: list[Tensor]
    errors: Tensor
    counts: Tensor | None
    learnt: Learnt | None


class Gradients(NamedTuple):
    """Where the gradient of a step goes.

    Attributes:
        estimator: how that of ``quantized`` reaches x; None if it does not, and is that of the
            codes.
        by_error: whether the errors move the codes, too.
    """

    estimator: str | None
    by_error: bool


def nearest_step(
    book: Codebook,
    tables: list[Tensor],
    mask: Tensor | None,
    gradients: Gradients,
    *,
    learns: bool,
    ema_update: bool,
    temperature: float | None,
) -> Step:
    """Table t of ``book`` quantizes ``tables[t]``, (*positions, D)."""
    learns = learns and (ema_update or book.has_dead_code_replacement)
    steps = [
        book.quantize(
            number,
            x,
            mask,
            estimator=gradients.estimator or "straight_through",
            by_gradient=gradients.by_error,
            statistics=learns,
            temperature=temperature,
        )
        for number, x in enumerate(tables)
    ]
    outs = [out for out, _ in steps]
    quantized = [out.quantized for out in outs]
    if gradients.estimator is None:
        quantized = [book.values(number, out) for number, out in enumerate(outs)]
    # The two terms of the loss have one value, which theirs counts once.
    errors = [out.loss - out.usage.mse if gradients.by_error else out.loss for out in outs]
    learnt = None
    if learns:
        statistics = [
            Statistics(out.usage.counts, sums, *book.candidates(number, x, mask))
            for number, ((out, sums), x) in enumerate(zip(steps, tables, strict=True))
        ]
        learnt = Learnt(book, statistics, ema_update)
    indices = [out.indices for out in outs]
    return Step(quantized, indices, torch.stack(errors).mean(), outs[0].usage.counts, learnt)


def top_step(
    book: Codebook, x: Tensor, mask: Tensor | None, gradients: Gradients, *, k: int
) -> Step:
    """The k nearest codes of every vector, nearest first, of the one table. Nothing is learnt."""
    channel = x.ndim - 1
    codes = book.embed[0]
    indices = search_many(x, codes, k, book.metric, channel, None).indices
    repeated = x.unsqueeze(channel).expand(*indices.shape, -1)
    valid = None if mask is None else mask[..., None].expand(indices.shape)
    out, _ = functional.quantize_with_sums(
        repeated,
        codes.detach(),
        None,
        commitment_weight=0.0,
        codebook_weight=0.0,
        estimator=gradients.estimator or "straight_through",
        metric=book.metric,
        mask=valid,
        channel_dim=repeated.ndim - 1,
        backend=None,
        statistics=False,
        chosen=indices,
    )
    quantized = book.values(0, out) if gradients.estimator is None else out.quantized
    compared = x
    if book.use_cosine_sim:
        codes = ops.NormalizeCodes.apply(codes)
        compared = ops.UnitRows.apply(x, torch.ones_like(x[..., 0], dtype=torch.bool), channel)
    codes = codes if gradients.by_error else codes.detach()
    nearest = functional.lookup(indices, codes, channel_dim=-1)
    errors = (nearest - compared.unsqueeze(channel)).square().mean(dim=-1)
    if valid is not None:
        errors = torch.where(valid, errors, 0.0)
    return Step([quantized], [out.indices], errors, None, None)

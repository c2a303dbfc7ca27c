"""Quantizers whose gradient reaches all codes, for modules. Part of the functional layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels._layout import as_rows, row_shape
from vqkernels._numerics import sum_of_many, wide
from vqkernels._soft import mean_entropies
from vqkernels.functional import quantize_with_sums
from vqkernels.options import Entropy
from vqkernels.outputs import VQOutput


def largest_product(
    x: Tensor, codes: Tensor, bias: Tensor | None, channel_dim: int, backend: str | None
) -> Tensor:
    """``argmax_k x_n . c_k + b_k``: float64 sums, i ascending, b last; ties to the lowest index.

    It is the search for the largest cosine without the normalisation that comes before it.
    """
    x, codes = x.detach(), codes.detach()
    if bias is not None:
        sizes = list(x.shape)
        sizes[channel_dim] = 1
        x = torch.cat([x, x.new_ones(sizes)], dim=channel_dim)
        codes = torch.cat([codes, bias.detach()[:, None]], dim=1)
    return ops.nearest_code(x, codes, None, "cosine", channel_dim, backend)[0]


def index_quantize(
    x: Tensor,
    codebook: Tensor,
    *,
    mask: Tensor | None,
    channel_dim: int,
    soft_weight: float,
    backend: str | None,
    **weights: float,
) -> VQOutput:
    """The step of ``IBQ``."""
    rows = x.to(wide(x.dtype))
    chosen = largest_product(rows, codebook, None, channel_dim, backend)
    out = _assigned(rows, codebook, chosen, mask, channel_dim, backend, **weights)
    quantized = ops.IndexGradient.apply(
        *(rows, codebook, None, None, out.quantized.detach(), out.indices),
        *(None, None, 0, channel_dim, None),
    )
    valid = out.indices != -1
    error = torch.where(valid.unsqueeze(channel_dim), quantized - rows, 0.0)
    squares = error.square().sum(dim=channel_dim, dtype=torch.float64).reshape(-1)
    count = valid.sum().clamp(min=1) * codebook.shape[1]
    loss = out.loss + soft_weight * (sum_of_many(squares) / count).to(out.loss.dtype)
    quantized = _passed_through(quantized, x, mask, channel_dim)
    return out._replace(quantized=quantized, loss=loss)


def product_entropy(
    option: Entropy, x: Tensor, codebook: Tensor, mask: Tensor | None, channel_dim: int
) -> Tensor:
    """The loss that ``option`` adds, for ``p = softmax(x . c / temperature)``."""
    rows, valid = _rows(x, mask, channel_dim)
    temperature = torch.full((), option.temperature, dtype=wide(x.dtype), device=x.device)
    _, of_rows, mass = ops.SoftLookup.apply(
        rows, codebook, None, None, valid, temperature, None, 0, True, None
    )
    entropy = mean_entropies(of_rows, mass, valid, mass.dtype)
    return option.weight * (entropy.per_row - option.diversity * entropy.usage)


def gumbel_quantize(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    codebook: Tensor,
    *,
    temperature: Tensor,
    draws: Tensor | None,
    seed: int,
    hard: bool,
    mask: Tensor | None,
    channel_dim: int,
    backend: str | None,
) -> VQOutput:
    """The step of ``GumbelVQ`` without its loss; the likeliest code where ``draws`` is None."""
    rows = x.to(wide(x.dtype))
    if draws is None:
        chosen = largest_product(rows, weight, bias, channel_dim, backend)
    else:
        chosen = drawn_codes(rows, weight, bias, mask, draws, seed, channel_dim)
    out = _assigned(rows, codebook, chosen, mask, channel_dim, backend)
    quantized = gumbel_lookup(
        *(rows, weight, bias, codebook, out.quantized.detach(), out.indices),
        *(temperature, draws, seed, hard, channel_dim),
    )
    return out._replace(quantized=_passed_through(quantized, x, mask, channel_dim))


def drawn_codes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    draws: Tensor,
    seed: int,
    channel_dim: int,
) -> Tensor:
    """Indices drawn from ``softmax(x . w + b)``; 0 for rows that are masked or not finite."""
    rows, valid = _rows(x.detach(), mask, channel_dim)
    logits = (weight.detach(), None if bias is None else bias.detach())
    drawn = ops.draw_code(rows, *logits, valid, draws, seed)
    return drawn.reshape(row_shape(x, channel_dim))


def gumbel_lookup(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor,
    chosen: Tensor,
    indices: Tensor,
    temperature: Tensor,
    draws: Tensor | None,
    seed: int,
    hard: bool,
    channel_dim: int,
) -> Tensor:
    """``chosen``, the values of ``indices``, with the gradient of their softmax; or the mixture.

    In ``wide``, at the positions of x, of as many channels as values have. The noise is that of
    ``drawn_codes``, and none where ``draws`` is None. ``chosen`` also stands where a row takes no
    part in a mixture.
    """
    counted = None if torch.compiler.is_compiling() else draws
    if hard:
        quantized: Tensor = ops.IndexGradient.apply(
            *(x, weight, bias, values, chosen, indices),
            *(temperature, draws, seed, channel_dim, counted),
        )
        return quantized
    rows, valid = _rows(x, indices != -1, channel_dim)
    soft, _, _ = ops.SoftLookup.apply(
        rows, weight, bias, values, valid, temperature, draws, seed, False, counted
    )
    positions = row_shape(x, channel_dim)
    mixture = soft.reshape(*positions, values.shape[1]).movedim(-1, channel_dim)
    return torch.where(valid.reshape(positions).unsqueeze(channel_dim), mixture, chosen)


def divergence_from_uniform(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    channel_dim: int,
    num_codes: int,
) -> Tensor:
    """Mean over the valid rows of ``KL(softmax(x . w + b) || 1/num_codes)``, in nats.

    0 without valid rows.
    """
    rows, valid = _rows(x, mask, channel_dim)
    _, entropy, _ = ops.SoftLookup.apply(
        rows, weight, bias, None, valid, None, None, 0, False, None
    )
    count = valid.sum()
    # float64: the two are nearly equal, and a product with an integer has torch's default dtype.
    total = math.log(num_codes) * count.double() - sum_of_many(entropy.double())
    return (total / count.clamp(min=1)).to(wide(x.dtype))


def _passed_through(quantized: Tensor, x: Tensor, mask: Tensor | None, channel_dim: int) -> Tensor:
    """In x's dtype, and x itself where it is masked."""
    quantized = quantized.to(x.dtype)
    return quantized if mask is None else torch.where(mask.unsqueeze(channel_dim), quantized, x)


def _rows(x: Tensor, mask: Tensor | None, channel_dim: int) -> tuple[Tensor, Tensor]:
    """x as (N, D), and which rows take part."""
    rows = as_rows(x, channel_dim)
    valid = rows.detach().isfinite().all(dim=1)
    return rows, valid if mask is None else valid & mask.reshape(-1)


def _assigned(
    x: Tensor,
    codebook: Tensor,
    chosen: Tensor,
    mask: Tensor | None,
    channel_dim: int,
    backend: str | None,
    commitment_weight: float = 0.0,
    codebook_weight: float = 0.0,
) -> VQOutput:
    return quantize_with_sums(
        x,
        codebook,
        None,
        commitment_weight=commitment_weight,
        codebook_weight=codebook_weight,
        estimator="straight_through",
        metric="l2",
        mask=mask,
        channel_dim=channel_dim,
        backend=backend,
        statistics=False,
        chosen=chosen,
    )[0]

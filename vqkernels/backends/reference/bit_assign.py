"""bit_assign: soft assignment to all codes that B signs can make, in O(sqrt(codes)) per row."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

_NUMBERS = 2**18  # in a matrix of one block of rows


def bit_assign(
    x: Tensor, mask: Tensor | None, scale: float, floor: float
) -> tuple[Tensor, Tensor]:
    """``p_n(c)`` is the product over bits of ``sigmoid(+-scale * x_nb)``, + where c has the bit.

    x is (N, G, B), mask (N,): G assignments to 2^B codes each, first bit most significant. Returns
    (entropy, mass): (N, G) ``-sum_c p_n(c) log max(p_n(c), floor)`` and (G, 2^B) ``sum_n p_n(c)``,
    float64. Masked rows have entropy 0 and count nowhere; a NaN elsewhere stays one.

    Bits are independent: p is the product of a factor of the high and one of the low half of
    them, and the sum over rows one matrix product, of (2^H, N) and (N, 2^L) numbers. With
    ``floor=0`` the entropy is the sum over bits. float64 throughout: no setting of matrix products
    rounds it.
    """
    count, groups, bits = x.shape
    entropy = x.new_zeros(groups, count, dtype=torch.float64)
    mass = x.new_zeros(groups, 2 ** (bits // 2), 2 ** (bits - bits // 2), dtype=torch.float64)
    for here, logits, kept in _blocks(x, mask, scale):
        high, low = _halves(logits)
        mass.baddbmm_((high.exp() * kept).transpose(1, 2), low.exp())
        if floor > 0:
            rows = _floored(high, low, floor)[0].sum(dim=-1)
        else:
            size = logits.abs()
            rows = (F.softplus(-size) + size * torch.sigmoid(-size)).sum(dim=-1)
        entropy[:, here] = torch.where(kept[..., 0], rows, 0.0)
    return entropy.T.contiguous(), mass.flatten(1)


def bit_assign_backward(
    grad_entropy: Tensor | None,
    grad_mass: Tensor | None,
    x: Tensor,
    mask: Tensor | None,
    scale: float,
    floor: float,
) -> Tensor:
    """The gradient in x; the probabilities are computed again.

    With S(c) = p(c) times the derivative in p(c), that in a bit's logit is the sum of (1 - p_b) S
    over the codes that have the bit, less the sum of p_b S over those that lack it.
    """
    grad = x.new_zeros(x.shape[1], x.shape[0], x.shape[2], dtype=torch.float64)
    for here, logits, kept in _blocks(x, mask, scale):
        high, low = _halves(logits)
        of_high, of_low = torch.zeros_like(high), torch.zeros_like(low)
        if grad_mass is not None:
            table = grad_mass.unflatten(1, (high.shape[-1], low.shape[-1]))
            a, b = high.exp(), low.exp()
            of_high += a * (b @ table.transpose(1, 2))
            of_low += b * (a @ table)
        if grad_entropy is not None:
            upstream = grad_entropy[here].T[..., None]
            if floor > 0:
                for result, mine, other in ((of_high, high, low), (of_low, low, high)):
                    value, above = _floored(mine, other, floor)
                    result += upstream * (value - above)
            else:
                slope = torch.sigmoid(logits) * torch.sigmoid(-logits)
                grad[:, here] -= upstream * logits * slope
        width = (high.shape[-1] - 1).bit_length()
        parts = ((of_high, logits[..., :width]), (of_low, logits[..., width:]))
        grad[:, here] += torch.cat([_of_bits(*part) for part in parts], dim=-1)
        grad[:, here] = torch.where(kept, grad[:, here], 0.0)
    return (grad * scale).transpose(0, 1).to(x.dtype).contiguous()


def _blocks(
    x: Tensor, mask: Tensor | None, scale: float
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Of fixed numbers of rows: where, the logits (G, n, B), and which rows count (1, n, 1)."""
    _, groups, bits = x.shape
    size = max(1, _NUMBERS // (groups * 2 ** (bits - bits // 2)))
    for start in range(0, len(x), size):
        here = slice(start, min(start + size, len(x)))
        rows = x[here].transpose(0, 1)
        kept = torch.ones_like(rows[:1, :, :1], dtype=torch.bool)
        if mask is not None:
            kept = mask[here][None, :, None]
        yield here, torch.where(kept, rows, 0.0).double() * scale, kept


def _halves(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the values of the high bits (G, n, 2^H) and of the low ones."""
    width = logits.shape[-1] // 2
    return _log_probabilities(logits[..., :width]), _log_probabilities(logits[..., width:])


def _log_probabilities(logits: Tensor) -> Tensor:
    # Not logsigmoid, which shares the smallest work among the threads. Above 50 float64 has no
    # place for the difference.
    unset, has = (F.softplus(sign * logits, threshold=50.0) for sign in (1.0, -1.0))
    found = logits.new_zeros(*logits.shape[:-1], 1)
    for bit in torch.stack([unset, has], dim=-1).unbind(dim=-2):
        found = (found[..., :, None] - bit[..., None, :]).flatten(-2)
    return found


def _floored(mine: Tensor, other: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Per value of my half, over the other: ``-sum p log max(p, floor)``, ``sum of p >= floor``.

    The values of the other half in ascending order: those below the floor are the first ones.
    """
    ordered = other.sort(dim=-1).values
    p = ordered.exp()
    first = torch.searchsorted(ordered, math.log(floor) - mine)
    sums = [F.pad(terms.cumsum(dim=-1), (1, 0)) for terms in (p, p * ordered)]
    below = sums[0].gather(-1, first)
    above, logs = (total[..., -1:] - total.gather(-1, first) for total in sums)
    share = mine.exp()
    return -share * (math.log(floor) * below + logs + mine * above), share * above


def _of_bits(weighted: Tensor, logits: Tensor) -> Tensor:
    """What the terms S of the values of some bits come to in the logits of these bits."""
    width = logits.shape[-1]
    values = torch.arange(2**width, device=logits.device)[:, None]
    places = torch.arange(width - 1, -1, -1, device=logits.device)
    have = (values >> places & 1).double()
    return torch.sigmoid(-logits) * (weighted @ have) - torch.sigmoid(logits) * (
        weighted @ (1 - have)
    )

"""soft_lookup: what a row expects to find in a table, by its softmax over all codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.reference._dot_blocks import dot_blocks


def soft_lookup(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor | None,
    mask: Tensor | None,
    temperature: Tensor | None,
    keys: tuple[Tensor, Tensor] | None,
    usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(soft, entropy, mass) of ``p_n = softmax_k((x_n . w_k + b_k + noise) / temperature)``.

    ``soft_n = sum_k p_nk v_k`` (N, D), without ``values`` empty; ``entropy_n = H(p_n)`` (N,);
    ``mass_k = sum_n p_nk`` (K,), empty without ``usage``. 0 for rows that take no part. Whole
    rows of probabilities exist for one block at a time.
    """
    blocks = dot_blocks(x, weight, bias, mask, temperature, keys)
    rows, dtype = blocks.rows, blocks.rows.dtype
    table = None if values is None else finite_rows(values).to(dtype)
    soft = rows.new_zeros(0 if table is None else (len(rows), table.shape[1]))
    entropy = rows.new_empty(len(rows))
    mass = rows.new_zeros(len(weight) if usage else 0, dtype=torch.float64)
    for here in blocks:
        logs = blocks.logits(here).log_softmax(dim=1)
        p = logs.exp()
        valid = blocks.valid[here]
        if table is not None:
            soft[here] = (p @ table) * valid[:, None]
        if usage:
            mass += valid @ p
        entropy[here] = -logs.masked_fill_(p == 0, 0.0).mul_(p).sum(dim=1) * valid
    return soft, entropy, mass.to(dtype)


def finite_rows(values: Tensor) -> Tensor:
    """``values`` with zeros for rows that are not finite: 0 times such a row must be 0."""
    return torch.where(values.isfinite().all(dim=1, keepdim=True), values, 0.0)

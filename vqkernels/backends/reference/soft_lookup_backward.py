"""soft_lookup_backward: the gradients of soft_lookup."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.reference._dot_blocks import dot_blocks
from vqkernels.backends.reference.soft_lookup import finite_rows


def soft_lookup_backward(
    grad_soft: Tensor | None,
    grad_entropy: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor | None,
    mask: Tensor | None,
    temperature: Tensor | None,
    keys: tuple[Tensor, Tensor] | None,
    need_x: bool,
    need_weight: bool,
    need_values: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x, weight, bias, values): the probabilities are computed again, block by block.

    The derivative in a logit is ``p_nk (a_nk - sum_j p_nj a_nj)`` with
    ``a_nk = g_soft_n . v_k - g_entropy_n log p_nk + g_usage_k``. What is not needed is zero.
    """
    blocks = dot_blocks(x, weight, bias, mask, temperature, keys)
    rows, codes, dtype = blocks.rows, blocks.weight, blocks.rows.dtype
    grad_x, grad_weight = torch.zeros_like(rows), torch.zeros_like(codes)
    grad_bias = torch.zeros_like(blocks.bias)
    table = None if values is None else finite_rows(values).to(dtype)
    grad_values = rows.new_zeros(0) if table is None else torch.zeros_like(table)
    for here in blocks:
        logs = blocks.logits(here).log_softmax(dim=1)
        p = logs.exp()
        valid = blocks.valid[here, None]
        slope = torch.zeros_like(p)
        if grad_soft is not None and table is not None:
            upstream = torch.where(valid > 0, grad_soft[here], 0.0).to(dtype)
            torch.mm(upstream, table.T, out=slope)
            if need_values:
                grad_values.addmm_(p.T, upstream)
        if grad_entropy is not None:
            share = torch.where(valid > 0, grad_entropy[here, None], 0.0).to(dtype)
            slope -= logs.masked_fill_(p == 0, 0.0).mul_(share)
        if grad_usage is not None:
            slope += grad_usage.to(dtype) * valid
        slope *= p
        slope -= p.mul_(slope.sum(dim=1, keepdim=True))
        if temperature is not None:
            slope /= temperature
        if need_x:
            torch.mm(slope, codes, out=grad_x[here])
        if need_weight:
            grad_weight.addmm_(slope.T, rows[here])
            grad_bias += slope.sum(dim=0)
    return grad_x, grad_weight, grad_bias, grad_values

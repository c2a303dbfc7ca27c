"""soft_assign_backward: the gradients of soft_assign."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x, write_rows
from vqkernels._numerics import wide
from vqkernels.backends.reference._soft_blocks import soft_blocks


def soft_assign_backward(
    grad_logsumexp: Tensor | None,
    grad_mean_logit: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    logsumexp: Tensor,
    mean_logit: Tensor,
    temperature: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients in x and the codes, the logits computed again block by block.

    The derivative in a logit is ``A_nk = p_nk (g_lse_n + g_mean_n (1 + l_nk - mean_n)
    + g_usage_k - z_n)`` with ``z_n = sum_k p_nk g_usage_k``, and that of the logit is
    ``-2 (x_n - c_k) / temperature`` in x and its negative in c.
    """
    blocks = soft_blocks(x, codebook, mask, temperature, channel_dim)
    normaliser, mean = logsumexp.reshape(-1), mean_logit.reshape(-1)
    zeros = torch.zeros_like(normaliser)
    of_mean = zeros if grad_mean_logit is None else grad_mean_logit.reshape(-1).double()
    of_row = of_mean * (1.0 - mean)
    if grad_logsumexp is not None:
        of_row = of_row + grad_logsumexp.reshape(-1).double()
    of_code = torch.zeros_like(blocks.codes[:, 0])
    if grad_usage is not None:
        of_code = grad_usage.double()
        for here in blocks.row_blocks():
            for there in blocks.code_blocks():
                p, _ = blocks.probabilities(here, there, normaliser)
                of_row[here] -= (p * of_code[there]).sum(dim=1)

    row_pull, code_pull = torch.zeros_like(blocks.rows), torch.zeros_like(blocks.codes)
    row_weight, code_weight = torch.zeros_like(of_row), torch.zeros_like(of_code)
    for here in blocks.row_blocks():
        for there in blocks.code_blocks():
            p, logits = blocks.probabilities(here, there, normaliser)
            a = p * (of_row[here, None] + of_mean[here, None] * logits + of_code[there])
            row_pull[here] += a @ blocks.codes[there]
            row_weight[here] += a.sum(dim=1)
            code_pull[there] += a.T @ blocks.rows[here]
            code_weight[there] += a.sum(dim=0)

    dtype = wide(x.dtype, codebook.dtype)
    grad_x, grad_codes = x.new_empty(0), codebook.new_empty(0, dtype=dtype)
    if need_x:
        grad = (row_pull - row_weight[:, None] * blocks.rows) * (2.0 / temperature)
        grad_x = write_rows(grad.to(x.dtype), like_x(x, x.dtype), channel_dim)
    if need_codebook:
        grad = (code_pull - code_weight[:, None] * blocks.codes) * (2.0 / temperature)
        grad_codes = grad.to(dtype)
    return grad_x, grad_codes

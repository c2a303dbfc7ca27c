"""vq_forward in Triton: the search (or given codes), one pass over x, and the sums per code."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.backends.triton._assign import Assignment
from vqkernels.backends.triton._layouts import joint_layout
from vqkernels.backends.triton._run_sums import run_sums
from vqkernels.backends.triton._runs import find_runs
from vqkernels.backends.triton.nearest_code import nearest_code


def vq_forward(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(quantized, indices, mse, counts, sums) as ``reference.vq_forward`` defines them."""
    quantized = like_x(x, torch.float32)
    if joint_layout(channel_dim, x, quantized) is None:
        options = (mask, metric, channel_dim, statistics, given)
        step = vq_forward(x.contiguous(), codebook, prepared, *options)
        return quantized.copy_(step[0]), *step[1:]
    k, dim = codebook.shape
    if given is None:
        found, _ = nearest_code(x, codebook, prepared, metric, channel_dim)
        indices = found
    else:
        found = given.to(torch.int64).contiguous()
        indices = torch.empty_like(found)
    mse = torch.empty((), dtype=torch.float32, device=x.device)
    after = Assignment(x, indices.numel(), mse, channel_dim)
    keys, inverse_norms = after.level(
        *(0, x, codebook.contiguous(), mask, None, found.view(-1), indices.view(-1), quantized),
        unit=metric == "cosine",
    )
    after.finish()
    runs = find_runs(keys, k)
    sums = torch.empty(k if statistics else 0, dim, dtype=torch.float32, device=x.device)
    if statistics:
        run_sums(x, runs, sums, channel_dim, inverse_norms=inverse_norms)
    return quantized, indices, mse, runs.counts, sums

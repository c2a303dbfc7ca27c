"""ema_update_ in Triton: the bits of ``ops.ema_update.moved``, in two launches.

Divisions are correctly rounded (``div_rn``), multiplications and additions are not fused.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._in_place import wrote
from vqkernels.backends.triton._mass import Mass, decay_sizes, tree_sum
from vqkernels.backends.triton._tiles import tile_of_length


@triton.jit(do_not_specialize=["num_codes"])
def _move_codes_kernel(
    codebook_ptr,  # (K, D) fp32, updated
    cluster_size_ptr,  # (K,) fp32, the new sizes
    embed_sum_ptr,  # (K, D) fp32, updated
    sums_ptr,  # (K, D) fp32; cleared if PENDING
    columns_ptr,  # (COLUMNS,) fp32, see _mass
    due_ptr,  # () int64 | None unless PENDING
    frozen_ptr,  # (K,) int64 | None: not 0 where the code stays
    num_codes,
    dim,
    decay,
    rest,
    epsilon,
    total_epsilon,  # K * epsilon
    PENDING: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    code = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    code_ok = code < num_codes
    if PENDING:
        code_ok = code_ok & (tl.load(due_ptr) != 0)
    mass = tree_sum(columns_ptr, COLUMNS, STEPS)
    size = tl.load(cluster_size_ptr + code, mask=code_ok, other=0.0)
    share = tl.div_rn(size + epsilon, tl.zeros_like(size) + (mass + total_epsilon))
    smoothed = share * mass

    inside = code_ok[:, None] & (column < dim)[None, :]
    at = code[:, None] * dim + column[None, :]
    total = tl.load(embed_sum_ptr + at, mask=inside, other=0.0)
    total = decay * total + rest * tl.load(sums_ptr + at, mask=inside, other=0.0)
    tl.store(embed_sum_ptr + at, total, mask=inside)
    if PENDING:
        tl.debug_barrier()  # the thread that clears an element need not be the one that read it
        tl.store(sums_ptr + at, tl.zeros_like(total), mask=inside)
    # A code without any mass keeps its place.
    moves = smoothed > 0
    if frozen_ptr is not None:
        moves = moves & (tl.load(frozen_ptr + code, mask=code_ok, other=0) == 0)
    moves = inside & moves[:, None]
    divisor = tl.where(moves, tl.zeros_like(total) + smoothed[:, None], 1.0)
    tl.store(codebook_ptr + at, tl.div_rn(total, divisor), mask=moves)


def move_codes(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor,
    sums: Tensor,
    mass: Mass,
    decay: float,
    epsilon: float,
    due: Tensor | None = None,
    frozen: Tensor | None = None,
) -> None:
    """Moves the codes by the sums; with ``due`` only where it is not 0, and clears them then.

    Codes that ``frozen`` marks stay.
    """
    k, dim = codebook.shape
    block_k, block_d = tile_of_length(dim)
    with torch.cuda.device_of(codebook):
        _move_codes_kernel[(triton.cdiv(k, block_k), triton.cdiv(dim, block_d))](
            codebook,
            cluster_size,
            embed_sum,
            sums,
            mass.columns,
            due,
            frozen,
            k,
            dim,
            decay,
            1.0 - decay,
            epsilon,
            k * epsilon,
            PENDING=due is not None,
            COLUMNS=mass.columns.numel(),
            STEPS=mass.steps,
            BLOCK_K=block_k,
            BLOCK_D=block_d,
            enable_fp_fusion=False,
        )


def ema_update(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor,
    counts: Tensor,
    sums: Tensor,
    decay: float,
    epsilon: float,
) -> None:
    mass = decay_sizes(cluster_size, counts, decay)
    move_codes(codebook, cluster_size, embed_sum, sums, mass, decay, epsilon)
    wrote(codebook, cluster_size, embed_sum)

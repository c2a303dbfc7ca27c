"""vq_assigned: the step of ``vq_forward`` for codes that something else has chosen."""

from __future__ import annotations

from torch import Tensor

from vqkernels.backends import reference
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, launcher
from vqkernels.ops.lookup import refuse_out_of_range
from vqkernels.ops.vq_forward import Step, like_step


def _impl(
    x: Tensor,
    codebook: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    backend: str | None,
) -> Step:
    """Index -1 masks its row. One out of range does so too on CUDA; on the CPU it is refused."""
    num_codes = codebook.shape[0]
    if x.device.type == "cpu":
        refuse_out_of_range(indices, num_codes)
    kept = (indices >= 0) & (indices < num_codes)
    if mask is not None:
        kept &= mask
    arguments = (x, codebook, indices, kept, metric, channel_dim, statistics)
    if choose("vq_assigned", x, codebook, backend) == "reference":
        return reference.vq_forward(*arguments)
    step: Step = launcher("vq_assigned", x, codebook, backend).vq_assigned(*arguments)
    return step


def _fake(
    x: Tensor,
    codebook: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    backend: str | None,
) -> Step:
    return like_step(x, codebook, channel_dim, statistics)


vq_assigned = define(
    "vq_assigned(Tensor x, Tensor codebook, Tensor indices, Tensor? mask, str metric, "
    "int channel_dim, bool statistics, str? backend) "
    "-> (Tensor quantized, Tensor indices, Tensor mse, Tensor counts, Tensor sums)",
    _impl,
    _fake,
)

"""Projected: a quantizer of fewer channels, between two linear maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqkernels import _checks
from vqkernels._layout import row_shape
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.nn._quantizer import Learnt, Quantizer, refuse_many
from vqkernels.outputs import VQOutput


class Projected(Quantizer):
    """Quantizes a linear image of x and maps it back (Yu et al. 2021, arXiv 2110.04627)::

        z = W_in x + b_in;    quantized = W_out q(z) + b_out

    Codes of few channels are used more evenly ("factorized codes"). q is any quantizer and sees z
    as its x: indices are the exact nearest codes of z, and loss and ``usage.mse`` compare these
    two, not x with ``quantized``. Gradients are those of plain torch, with q's estimator for q.

    ``Projected(GroupedVQ(make, heads), in_dim)`` is the multi-head quantizer of the field::

        heads = vq.nn.GroupedVQ(lambda: vq.nn.VectorQuantizer(1024, 32), groups=8)
        module = vq.nn.Projected(heads, in_dim=512)     # indices (B, *spatial, 8)

    The projections are ``nn.Linear`` modules, called as such. Under autocast z has its dtype, and
    the indices are those of that z. ``.half()`` reaches the projections and not the codebooks.
    Where x and they differ in dtype, without autocast, ``nn.Linear`` raises before any state
    moves. Its product copies an x whose channels are not neighbours in memory; those of
    ``quantized`` are.

    Args:
        quantizer: any quantizer of ``vqkernels.nn`` without ``TopK``; it decides ``channel_dim``.
        in_dim: channels of x.
        bias: whether the projections have one.

    Attributes:
        project_in, project_out: ``nn.Linear``, in_dim to the quantizer's width and back.
        quantizer: as given.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    def __init__(self, quantizer: Quantizer, in_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        if not isinstance(quantizer, Quantizer):
            kind = type(quantizer).__name__
            raise TypeError(f"quantizer must be a quantizer of vqkernels.nn, got {kind}")
        refuse_many("quantizer must be one", quantizer, self)
        _checks.integer_at_least("in_dim", in_dim, 1)
        _checks.boolean("bias", bias)
        self.project_in = nn.Linear(int(in_dim), quantizer.embedding_dim, bias=bias)
        self.quantizer = quantizer
        self.project_out = nn.Linear(quantizer._decoded_dim, int(in_dim), bias=bias)
        self.in_dim = self.embedding_dim = int(in_dim)
        self.channel_dim = quantizer.channel_dim
        self._code_shape = quantizer._code_shape
        self._usage_shape = quantizer._usage_shape

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Projects x, quantizes it and projects it back; in training also keeps statistics.

        Args:
            x: (B, in_dim, *spatial) with ``channel_dim=1``; in the dtype of the projections, or
                any floating one under autocast.
            mask: bool, positions of x; False positions count nowhere, also in the gradients of
                the projections, and pass through: ``quantized`` is x there.

        Returns:
            VQOutput(quantized, indices, loss, usage): ``quantized`` has shape and dtype of x, the
            rest is the quantizer's own.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        valid = None if mask is None else mask.unsqueeze(channel)
        # What lies under the mask would reach the weights' gradients: 0 times a NaN is one.
        rows = x if valid is None else torch.where(valid, x, 0.0)
        out, learnt = self.quantizer._step(_along(channel, self.project_in, rows), mask)
        quantized = _along(channel, self.project_out, out.quantized).to(x.dtype)
        if valid is not None:
            quantized = torch.where(valid, quantized, x)
        return VQOutput(quantized, out.indices, out.loss, out.usage), learnt

    def _codebooks(self) -> list[LearnedCodebook]:
        return self.quantizer._codebooks()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the codes nearest to the projected x. Changes no state."""
        channel = self._check(x, None)
        return self.quantizer.encode(_along(channel, self.project_in, x))

    def decode(self, indices: Tensor) -> Tensor:
        """The codes mapped back to in_dim channels, in the dtype of ``project_out``.

        Until a codebook moves this equals ``forward(x).quantized`` at valid positions, up to the
        rounding of the product. Positions without any code, with index -1 throughout, are zero.
        Differentiable in the projection and in ``Gradient`` codebooks.
        """
        codes = self.quantizer.decode(indices)
        channel = _checks.channel_dim(self.channel_dim, codes.ndim)
        vectors = _along(channel, self.project_out, codes.to(self.project_out.weight.dtype))
        positions = indices.ndim - len(self._code_shape)
        empty = indices.unsqueeze(-1).flatten(positions).amax(dim=-1) < 0
        return vectors.masked_fill(empty.unsqueeze(channel), 0.0)

    @torch.no_grad()
    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation on the projected x now, where it is still to be done."""
        channel = self._check(x, mask)
        self.quantizer.init_codebook(_along(channel, self.project_in, x), mask)

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = _checks.vectors(x, self.in_dim, self.channel_dim)
        _checks.mask(mask, x, row_shape(x, channel))
        # What the projection will return, as far as the quantizer asks, before anything moves.
        sizes = [-1] * x.ndim
        sizes[channel] = self.quantizer.embedding_dim
        self.quantizer._check(x.narrow(channel, 0, 1).expand(sizes), mask)
        return channel

    def extra_repr(self) -> str:
        return f"in_dim={self.in_dim}"


def _along(channel: int, linear: nn.Module, x: Tensor) -> Tensor:
    """``linear`` along dimension ``channel`` of x."""
    vectors: Tensor = linear(x.movedim(channel, -1))
    return vectors.movedim(-1, channel)

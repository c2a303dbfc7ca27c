"""FSQ: every channel of a vector becomes one of a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._fsq import check_levels, codes_of, quantize_scalars
from vqkernels.nn._implicit_codebook import ImplicitCodebook
from vqkernels.nn._quantizer import Learnt
from vqkernels.outputs import VQOutput


class FSQ(ImplicitCodebook):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505): no codebook to learn.

    Channel i is bounded, then rounded to one of L_i levels, with ``h = floor(L / 2)``,
    ``r = (L - 1) (1 + 1e-3) / 2``, and ``o = 1/2`` for even L, 0 for odd::

        bounded(x) = (r tanh(x + atanh(o / r)) - o) / h
        quantized  = round(h bounded(x)) / h         in {-h, ..., L - 1 - h} / h

    The codes are the grid of all combinations, K = prod(L) in number. The index of a vector is
    the mixed-radix number of its levels, ``sum_i d_i prod_{j<i} L_j`` with d_i from 0 at the
    lowest. This is the formula of the paper's appendix with the corrections of
    vector-quantize-pytorch, to whose ``FSQ`` indices and codes correspond.

    Indices are exact: level d is taken where x reaches d of the L - 1 numbers at which
    bounded(x) lies halfway between two levels, computed once in float64 (a value on such a number
    goes up). They do not depend on backend, device, autocast or how tanh is computed. Gradients,
    ``gain * (1 - tanh^2)`` through the rounding (straight-through), and ``usage.mse`` do, in
    their last bits.

    There is nothing to learn: training and eval mode are the same, ``loss`` is 0, the
    ``state_dict`` is empty, and ``usage.mse`` compares ``quantized`` with bounded(x).
    ``Projected(FSQ(levels), in_dim)`` brings wider vectors to D channels;
    ``GroupedVQ(lambda: FSQ(levels), groups)`` gives each part an index of its own.

    Args:
        levels: L_i for each of the D channels, 3 to 65536, or from 2 with ``preserve_symmetry``;
            their product at most 2^62.
        preserve_symmetry: levels at ``(2 d - (L - 1)) / (L - 1)`` of bounded(x) = tanh(x), the
            same on both sides of 0 also for even L (Parker et al. 2024, arXiv 2411.19842).
        bound: "tanh", or "clamp": u(x) = min(max(x, -1), 1) in place of tanh and its inverse, for
            an x that is bounded already.
        channel_dim: dimension of x that holds the D channels: 1 for (B, D, *spatial), -1 for
            (B, T, D).
        backend: "native", "triton", "reference", or None for the first available one.

    Attributes:
        levels: as given, a tuple.
        num_embeddings: K. Up to 2^20 codes ``usage.counts`` is (K,). Beyond, nothing of that size
            is allocated: ``counts`` is (0,), ``usage.perplexity`` NaN and ``usage.active`` -1.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    def __init__(
        self,
        levels: Sequence[int],
        *,
        preserve_symmetry: bool = False,
        bound: str = "tanh",
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        checked = check_levels(levels, preserve_symmetry, bound)
        super().__init__(len(checked), channel_dim=channel_dim, backend=backend)
        self.levels = checked
        self.num_embeddings = math.prod(checked)
        self.preserve_symmetry = preserve_symmetry
        self.bound = bound

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16, whose values
                are used exactly (float64: reference backend).
            mask: bool, positions of x; False positions count nowhere and pass through: index -1,
                ``quantized`` and its gradient are those of x.

        Returns:
            VQOutput(quantized, indices, loss, usage): ``quantized`` in x's dtype. A vector with a
            NaN or an infinity has index 0, is NaN in ``quantized``, and is not counted.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        return self._quantize(x, mask, self._check(x, mask), count=True), []

    def _quantize(self, x: Tensor, mask: Tensor | None, channel: int, count: bool) -> VQOutput:
        options: dict[str, Any] = {"channel_dim": channel, "backend": self.backend}
        return quantize_scalars(
            x,
            mask,
            self.levels,
            preserve_symmetry=self.preserve_symmetry,
            bound=self.bound,
            count=count,
            **options,
        )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices: int64, positions of x."""
        return self._quantize(x, None, self._check(x, None), count=False).indices

    def decode(self, indices: Tensor) -> Tensor:
        """The codes of indices in [-1, K): float32, channels at ``channel_dim``; -1 gives zeros.

        Equals ``forward(x).quantized`` at valid positions, up to the rounding to x's dtype. An
        index out of range raises ValueError on the CPU and gives NaN elsewhere.
        """
        _checks.indices(indices)
        return codes_of(
            indices,
            self.levels,
            preserve_symmetry=self.preserve_symmetry,
            channel_dim=self.channel_dim,
        )

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = super()._check(x, mask)
        ops.dispatch.choose("fsq", x, None, self.backend)
        return channel

    def extra_repr(self) -> str:
        return (
            f"{list(self.levels)}, preserve_symmetry={self.preserve_symmetry}, "
            f"bound={self.bound!r}, channel_dim={self.channel_dim}, backend={self.backend!r}"
        )

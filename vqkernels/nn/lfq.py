"""LFQ: each channel becomes its sign."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._bit_codes import bit_entropy, bit_indices
from vqkernels._given_codes import quantize_to_given
from vqkernels._levels import MOST_CODES, MOST_COUNTED
from vqkernels.nn._implicit_codebook import ImplicitCodebook
from vqkernels.nn._quantizer import Learnt
from vqkernels.options import Entropy
from vqkernels.outputs import VQOutput

MOST_BITS = MOST_CODES.bit_length() - 1
_MOST_TOGETHER = MOST_COUNTED.bit_length() - 1  # bits up to which something is kept per code


class LFQ(ImplicitCodebook):
    """Lookup-free quantization (Yu et al. 2023, MAGVIT-v2, arXiv 2310.05737, section 3.1)::

        q_i = 1 if x_i > 0 else -1;    index = sum_i [x_i > 0] 2^(bits - i),  i = 1, ..., bits

    the nearest of all 2^bits codes in {-1, 1}^bits, without a codebook: nothing is learnt here,
    and there is no state. ``spherical=True`` is binary spherical quantization (Zhao et al. 2024,
    arXiv 2406.07548): x is replaced by u = x/max(|x|, 1e-12) and the codes by c/sqrt(bits).
    Values, loss and gradients are those of a frozen ``VectorQuantizer`` that holds all these codes
    in the order of their indices, with ``metric="cosine"`` where spherical, did its float64
    distances not round: here the smallest x_i > 0 has its sign. Ties go to the lowest index: zero,
    of either sign, is quantized to -1. The first channel is the most significant bit, as in the
    code of both papers (in the formula of the first it is the least significant one).

    The entropy loss is that of ``vq.Entropy`` over all codes, without the N x K array: bits of a
    row are independent, so ``per_row`` is the sum over bits, and the mean assignment of all rows
    one product of two matrices with 2^(bits/2) columns. It is computed in float64.

    A NaN or an infinity in a row gives index 0 and NaN in ``quantized`` and ``loss``; the row is
    left out of the entropies and of ``usage.counts``.

    Args:
        bits: channels of x, 1 to 62; there are 2^bits codes.
        spherical: codes and rows on the unit sphere.
        commitment_weight: beta, factor of ``mse(x, sg(q))``.
        regularize: tuple of ``Entropy(...)``, added to ``loss`` in training. The temperature is in
            units of squared distance, and of the cosine where spherical. The default is that of
            vector-quantize-pytorch (inverse temperature 100); ``()`` for none.
        entropy_group: for more than 20 bits, whose 2^bits probabilities would be a large vector:
            the usage term becomes the sum over groups of this many neighbouring bits, an upper
            bound of the entropy of all bits (Zhao et al. 2024, section 3). Divides ``bits``, at
            most 20; None for all bits at once.
        estimator: "straight_through" or "rotation".
        channel_dim: dimension of x that holds the bits: 1 for (B, bits, *spatial), -1 for
            (B, T, bits).
        backend: "native", "triton", "reference", or None for the first available one.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    def __init__(
        self,
        bits: int,
        *,
        spherical: bool = False,
        commitment_weight: float = 0.25,
        regularize: tuple[Entropy, ...] = (Entropy(0.1, temperature=0.01),),
        entropy_group: int | None = None,
        estimator: str = "straight_through",
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        _checks.integer_at_least("bits", bits, 1)
        if bits > MOST_BITS:
            raise ValueError(f"bits must be at most {MOST_BITS}, got {bits}")
        super().__init__(int(bits), channel_dim=channel_dim, backend=backend)
        _checks.boolean("spherical", spherical)
        _checks.at_least("commitment_weight", commitment_weight, 0.0)
        if not isinstance(regularize, tuple) or not all(
            isinstance(option, Entropy) for option in regularize
        ):
            raise TypeError(f"regularize must be a tuple of Entropy(...), got {regularize!r}")
        _check_group(entropy_group, bits, needed=bool(regularize))
        _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
        self.num_embeddings = 2**self.embedding_dim
        self.spherical = spherical
        self.commitment_weight = float(commitment_weight)
        self.regularize = regularize
        self.entropy_group = None if entropy_group is None else int(entropy_group)
        self.estimator = estimator

    @property
    def bits(self) -> int:
        return self.embedding_dim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x; in training mode the loss has the entropies.

        Args:
            x: (B, bits, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage). ``usage.counts`` is (2^bits,), or (0,) for
            more than 20 bits.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        finite = x.detach().isfinite().all(dim=channel)
        indices = torch.where(finite, bit_indices(x, channel), 0)
        codes = ops.bit_codes(indices.reshape(-1), self.bits, self._scale, 1)
        out = quantize_to_given(
            x,
            codes.to(x.dtype) if x.dtype == torch.float64 else codes,
            indices,
            self.num_embeddings if self.num_embeddings <= MOST_COUNTED else 0,
            commitment_weight=self.commitment_weight,
            estimator=self.estimator,
            metric=self._metric,
            mask=mask,
            channel_dim=channel,
            backend=self.backend,
        )
        if self.training:
            valid = finite if mask is None else finite & mask
            out = out._replace(loss=self._regularized(out.loss, x, valid, channel))
        return out, []

    def _regularized(self, loss: Tensor, x: Tensor, valid: Tensor, channel: int) -> Tensor:
        for option in self.regularize:
            entropy = bit_entropy(
                x,
                valid,
                temperature=float(option.temperature),
                metric=self._metric,
                group=self.entropy_group or self.bits,
                channel_dim=channel,
            )
            more = option.weight * (entropy.per_row - option.diversity * entropy.usage)
            loss = loss + more.to(loss.dtype)
        return loss

    @property
    def _metric(self) -> str:
        return "cosine" if self.spherical else "l2"

    @property
    def _scale(self) -> float:
        """What the bits of a code are multiplied by."""
        return 1.0 / math.sqrt(self.bits) if self.spherical else 1.0

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the codes: int64, positions of x."""
        channel = self._check(x, None)
        return torch.where(x.isfinite().all(dim=channel), bit_indices(x, channel), 0)

    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes, float32, channels at ``channel_dim``; index -1 gives zeros.

        Equals ``forward(x).quantized`` at valid positions, up to the rounding to x's dtype. An
        index outside of [-1, 2^bits) raises ValueError on the CPU and gives a NaN vector on CUDA.
        """
        _checks.indices(indices)
        channel = _checks.channel_dim(self.channel_dim, indices.ndim + 1)
        vectors: Tensor = ops.bit_codes(indices, self.bits, self._scale, channel)
        return vectors

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = super()._check(x, mask)
        ops.dispatch.choose("vq_assigned", x, None, self.backend)
        return channel

    def extra_repr(self) -> str:
        return (
            f"{self.bits}, spherical={self.spherical}, "
            f"commitment_weight={self.commitment_weight}, regularize={self.regularize}, "
            f"entropy_group={self.entropy_group}, estimator={self.estimator!r}, "
            f"channel_dim={self.channel_dim}, backend={self.backend!r}"
        )


def _check_group(group: Any, bits: int, *, needed: bool) -> None:
    if group is not None:
        _checks.integer_at_least("entropy_group", group, 1)
    if not needed or (group is None and bits <= _MOST_TOGETHER):
        return
    if group is None or group > _MOST_TOGETHER or bits % group:
        raise ValueError(
            f"entropy_group must be a divisor of bits={bits} of at most {_MOST_TOGETHER}, "
            f"or regularize=(), got {group}"
        )

"""LFQ: each channel of a linear image of x becomes its sign."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqkernels import _checks, distributed, ops
from vqkernels.compat._peer import Peer, refuse
from vqkernels.compat.vector_quantize_pytorch import _bit_losses
from vqkernels.compat.vector_quantize_pytorch._bit_losses import LossBreakdown
from vqkernels.nn.lfq import MOST_BITS

_MOST_PROBABILITIES = 2**26  # a vector of them is 512 MB


class Return(NamedTuple):
    """What LFQ returns."""

    quantized: Tensor
    indices: Tensor
    entropy_aux_loss: Tensor


class CosineSimLinear(nn.Module):
    """``scale`` times the cosines of x and the columns of ``weight``."""

    def __init__(self, dim_in: int, dim_out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(dim_in, dim_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) @ F.normalize(self.weight, dim=0) * self.scale


class LFQ(Peer):
    """``vector_quantize_pytorch.LFQ``: same calls, returns and state_dict.

    Lookup-free quantization (Yu et al. 2023, arXiv 2310.05737), ``spherical`` that of Zhao et al.
    2024 (arXiv 2406.07548): signs times ``codebook_scale``, over sqrt(bits) where spherical. In
    training the loss is ``entropy_loss_weight * (per_sample_entropy - diversity_gamma *
    batch_entropy) + commitment_loss_weight * commitment``, 0 otherwise.

    Arguments and attributes are theirs, their order of channels and bits too. What differs:

    - Neither an array of rows x codes nor a codebook exists; ``codebook`` is made when it is read.
    - ``quantized`` is the code to the last bit in training, where theirs adds a rounding.
    - Indices are exact beyond 2^31 codes, and the entropies may be left out
      (``entropy_loss_weight=0``), so that up to 62 bits are possible.
    - ``frac_per_sample_entropy`` draws another subset of the same size.
    - ``indices_to_codes`` gives zeros for -1 and refuses other indices without a code.

    Args:
        bug_compatible: False mends two slips of theirs. With a mask their batch entropy is that of
            the rows, each for itself, so that the two entropies cancel: it becomes that of the
            valid rows together. And where torch.distributed runs they divide the mean
            probabilities by the number of ranks, having added nothing up: it becomes the entropy
            of this rank's rows.

    Raises:
        NotImplementedError: more than 2^26 codes with an entropy loss.
        ValueError: an argument breaks its contract.
    """

    replaces = ("vector_quantize_pytorch.lookup_free_quantization.LFQ",)
    settings: ClassVar[tuple[str, ...]] = (
        "entropy_loss_weight",
        "commitment_loss_weight",
        "diversity_gamma",
        "frac_per_sample_entropy",
        "entropy_loss_offset",
        "soft_clamp_input_value",
    )

    mask: Tensor
    zero: Tensor
    orthogonal_rot: Tensor

    def __init__(
        self,
        *,
        dim: int | None = None,
        codebook_size: int | None = None,
        entropy_loss_weight: float = 0.1,
        commitment_loss_weight: float = 0.0,
        diversity_gamma: float = 1.0,
        straight_through_activation: nn.Module | None = None,
        num_codebooks: int = 1,
        keep_num_codebooks_dim: bool | None = None,
        codebook_scale: float = 1.0,
        frac_per_sample_entropy: float = 1.0,
        has_projections: bool | None = None,
        projection_has_bias: bool = True,
        soft_clamp_input_value: float | None = None,
        cosine_sim_project_in: bool = False,
        cosine_sim_project_in_scale: float | None = None,
        channel_first: bool | None = None,
        experimental_softplus_entropy_loss: bool = False,
        entropy_loss_offset: float = 5.0,
        spherical: bool = False,
        force_quantization_f32: bool = True,
        orthogonal_rotation: bool = False,
        bug_compatible: bool = True,
    ) -> None:
        super().__init__()
        bits = _bits(dim, codebook_size)
        _checks.integer_at_least("num_codebooks", num_codebooks, 1)
        several = num_codebooks > 1
        keep = several if keep_num_codebooks_dim is None else keep_num_codebooks_dim
        if several and not keep:
            raise ValueError(f"keep_num_codebooks_dim must be True, got {keep_num_codebooks_dim}")
        _checks.above("frac_per_sample_entropy", frac_per_sample_entropy, 0.0)
        _checks.in_range("frac_per_sample_entropy", frac_per_sample_entropy, 0.0, 1.0)
        if soft_clamp_input_value is not None:
            _checks.at_least("soft_clamp_input_value", soft_clamp_input_value, codebook_scale)
        if entropy_loss_weight and 2**bits * num_codebooks > _MOST_PROBABILITIES:
            refuse(self, f"entropy_loss_weight={entropy_loss_weight} with 2^{bits} codes")
        self.codebook_size = 2**bits
        self.codebook_dim = bits
        self.num_codebooks = num_codebooks
        width = bits * num_codebooks
        self.dim = width if dim is None else dim
        self.has_projections = self.dim != width if has_projections is None else has_projections
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.has_projections:
            if cosine_sim_project_in:
                scale = cosine_sim_project_in_scale
                scale = codebook_scale if scale is None else scale
                self.project_in = CosineSimLinear(self.dim, width, scale=scale)
            else:
                self.project_in = nn.Linear(self.dim, width, bias=projection_has_bias)
            self.project_out = nn.Linear(width, self.dim, bias=projection_has_bias)
        self.keep_num_codebooks_dim = keep
        self.channel_first = channel_first
        self.activation = straight_through_activation or nn.Identity()
        self.spherical = spherical
        self.orthogonal_rotation = orthogonal_rotation
        if orthogonal_rotation:
            rotation = nn.init.orthogonal_(torch.empty(bits, bits))
            self.register_buffer("orthogonal_rot", rotation)
        self.frac_per_sample_entropy = frac_per_sample_entropy
        self.diversity_gamma = diversity_gamma
        self.entropy_loss_weight = entropy_loss_weight
        self.codebook_scale = codebook_scale
        self.commitment_loss_weight = commitment_loss_weight
        self.soft_clamp_input_value = soft_clamp_input_value
        self.entropy_loss_offset = entropy_loss_offset
        self.experimental_softplus_entropy_loss = experimental_softplus_entropy_loss
        self.force_quantization_f32 = force_quantization_f32
        self.bug_compatible = bug_compatible
        self.register_buffer("mask", 2 ** torch.arange(bits - 1, -1, -1))
        self.register_buffer("zero", torch.tensor(0.0), persistent=False)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        own = (
            *("dim", "codebook_size", "entropy_loss_weight", "commitment_loss_weight"),
            *("diversity_gamma", "num_codebooks", "keep_num_codebooks_dim", "codebook_scale"),
            *("frac_per_sample_entropy", "has_projections", "soft_clamp_input_value"),
            *("channel_first", "experimental_softplus_entropy_loss", "entropy_loss_offset"),
            *("spherical", "force_quantization_f32", "orthogonal_rotation"),
        )
        return {
            **{name: getattr(theirs, name) for name in own},
            "straight_through_activation": theirs.activation,
            "projection_has_bias": getattr(theirs.project_out, "bias", None) is not None,
            "cosine_sim_project_in": hasattr(theirs.project_in, "scale"),
            "cosine_sim_project_in_scale": getattr(theirs.project_in, "scale", None),
        }

    @property
    def codebook(self) -> Tensor:
        """(codebook_size, codebook_dim), made at every reading; theirs stores it."""
        indices = torch.arange(self.codebook_size, device=self.mask.device)
        return self._codes(indices, raw=True)

    @property
    def dtype(self) -> torch.dtype:
        return self.zero.dtype

    def bits_to_codes(self, bits: Tensor) -> Tensor:
        """0 and 1 to the numbers of a code, which are not on the sphere yet."""
        return bits * self.codebook_scale * 2 - self.codebook_scale

    def maybe_l2norm(self, t: Tensor) -> Tensor:
        """t on the sphere of radius ``codebook_scale``, where spherical."""
        return F.normalize(t, dim=-1) * self.codebook_scale if self.spherical else t

    def indices_to_codes(self, indices: Tensor, project_out: bool = True) -> Tensor:
        """What ``forward`` returns as quantized, up to rounding."""
        image = indices.ndim >= 3 + int(self.keep_num_codebooks_dim)
        first = image if self.channel_first is None else self.channel_first
        if not self.keep_num_codebooks_dim:
            indices = indices[..., None]
        vectors = self._codes(indices).flatten(-2)
        vectors = self.project_out(vectors) if project_out else vectors
        return vectors.movedim(-1, 1) if first else vectors

    def _codes(self, indices: Tensor, *, raw: bool = False) -> Tensor:
        """(*indices.shape, bits); ``raw`` as they are in ``codebook``."""
        scale = self.codebook_scale
        codes = ops.bit_codes(indices, self.codebook_dim, scale, indices.ndim).to(self.dtype)
        return codes if raw else self._unrotated(self.maybe_l2norm(codes))

    def forward(
        self,
        x: Tensor,
        inv_temperature: float = 100.0,
        return_loss_breakdown: bool = False,
        mask: Tensor | None = None,
    ) -> Return | tuple[Return, LossBreakdown]:
        """Quantizes x.

        Args:
            x: (B, N, dim), or (B, dim, *spatial) with two spatial dimensions or more, or with
                ``channel_first=True``.
            inv_temperature: of the soft assignment, over squared distances.
            mask: bool, (B, N) or the positions of x: what counts in the losses. The rest is
                quantized all the same.

        Returns:
            Return(quantized, indices, entropy_aux_loss): indices int64, the positions of x and,
            with ``keep_num_codebooks_dim``, the codebooks. And a LossBreakdown, if asked for.
        """
        _checks.floating("x", x)
        first = x.ndim >= 4 if self.channel_first is None else self.channel_first
        channel = _checks.vectors(x, self.dim, 1 if first else x.ndim - 1)
        rows = self.project_in(x.movedim(channel, -1))
        if self.soft_clamp_input_value is not None:
            rows = (rows / self.soft_clamp_input_value).tanh() * self.soft_clamp_input_value
        rows = rows.unflatten(-1, (self.num_codebooks, self.codebook_dim))
        if self.orthogonal_rotation:
            rows = rows @ self.orthogonal_rot.to(rows.dtype)
        rows = self.maybe_l2norm(rows)
        dtype = rows.dtype
        rows = rows.float() if self.force_quantization_f32 else rows

        positive = rows.detach() > 0
        indices = torch.where(positive, self.mask, 0).sum(dim=-1)
        codes = self.maybe_l2norm(self.bits_to_codes(positive.to(rows.dtype)))
        vectors = codes
        if self.training:
            passed = self.activation(rows)
            # x - x is 0, and NaN where there is no code for x.
            vectors = codes + (passed - passed.detach())
        wanted = bool(self.entropy_loss_weight) or return_loss_breakdown
        losses = self._losses(rows, codes, mask, float(inv_temperature), entropies=wanted)
        vectors = self.project_out(self._unrotated(vectors.to(dtype)).flatten(-2))
        returned = Return(
            vectors.movedim(-1, channel),
            indices if self.keep_num_codebooks_dim else indices.squeeze(-1),
            self._total(losses),
        )
        return (returned, losses) if return_loss_breakdown else returned

    def _losses(
        self,
        rows: Tensor,
        codes: Tensor,
        mask: Tensor | None,
        inv_temperature: float,
        *,
        entropies: bool,
    ) -> LossBreakdown:
        """The terms; 0 in evaluation, and what is not wanted."""
        per_sample = batch = commitment = self.zero
        if not self.training:
            return LossBreakdown(per_sample, batch, commitment)
        positions = rows.shape[:-2]
        if mask is not None:
            if mask.shape == (positions[0], math.prod(positions[1:])):
                mask = mask.reshape(positions)
            _checks.mask(mask, rows, tuple(positions))
        if self.commitment_loss_weight > 0:
            commitment = _bit_losses.commitment(rows, codes, mask)
        if entropies:
            kept = mask
            if self.frac_per_sample_entropy < 1:
                kept = _bit_losses.random_share(mask, self.frac_per_sample_entropy, rows)
            size = self.codebook_scale
            size = size / math.sqrt(self.codebook_dim) if self.spherical else size
            group = distributed.group_of(None) if self.bug_compatible else None
            per_sample, batch = _bit_losses.entropies(
                rows,
                kept,
                4.0 * inv_temperature * size,
                pooled=mask is None or not self.bug_compatible,
                ranks=1 if group is None else group.size,
            )
        return LossBreakdown(per_sample, batch, commitment)

    def _total(self, losses: LossBreakdown) -> Tensor:
        entropy = losses.per_sample_entropy - self.diversity_gamma * losses.batch_entropy
        if self.training and self.experimental_softplus_entropy_loss:
            entropy = F.softplus(entropy + self.entropy_loss_offset)
        weighted = entropy * self.entropy_loss_weight
        return weighted + losses.commitment * self.commitment_loss_weight

    def _unrotated(self, vectors: Tensor) -> Tensor:
        if not self.orthogonal_rotation:
            return vectors
        return vectors @ self.orthogonal_rot.t().to(vectors.dtype)


def _bits(dim: int | None, codebook_size: int | None) -> int:
    if codebook_size is None:
        if dim is None:
            raise ValueError("codebook_size must be given without dim, got None")
        _checks.integer_at_least("dim", dim, 1)
        bits = dim
    else:
        _checks.integer_at_least("codebook_size", codebook_size, 2)
        bits = codebook_size.bit_length() - 1
        if codebook_size != 2**bits:
            raise ValueError(f"codebook_size must be a power of 2, got {codebook_size}")
    if bits > MOST_BITS:
        raise ValueError(f"codebook_size must be at most 2^{MOST_BITS}, got 2^{bits}")
    return bits

"""FSQ: every channel of a vector becomes one of a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels._fsq import check_levels, codes_of, quantize_scalars
from vqkernels._levels import basis_of
from vqkernels.compat._peer import Peer, unserved

_LOW = (torch.float16, torch.bfloat16)


class FSQ(Peer):
    """``vector_quantize_pytorch.FSQ``: same calls, returns and state_dict.

    Each channel is bounded and rounded (Mentzer et al. 2023, arXiv 2309.15505) as
    ``vqkernels.nn.FSQ`` does it; ``preserve_symmetry`` and ``noise_dropout`` are those of Parker
    et al. 2024 (arXiv 2411.19842, section 3.2). Indices are int32 as theirs, int64 where the
    codes are more than int32 can number, and exact there too. ``implicit_codebook`` is made when
    it is read. From 1000 levels in a channel on theirs leave their range; here they stay in it.
    """

    replaces = ("vector_quantize_pytorch.finite_scalar_quantization.FSQ",)
    settings: ClassVar[tuple[str, ...]] = ("noise_dropout",)

    _levels: Tensor
    _basis: Tensor
    orthogonal_rot: Tensor

    def __init__(
        self,
        levels: Sequence[int],
        dim: int | None = None,
        num_codebooks: int = 1,
        keep_num_codebooks_dim: bool | None = None,
        scale: float | None = None,
        allowed_dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64),
        channel_first: bool = False,
        projection_has_bias: bool = True,
        return_indices: bool = True,
        force_quantization_f32: bool = True,
        preserve_symmetry: bool = False,
        noise_dropout: float = 0.0,
        bound_hard_clamp: bool = False,
        orthogonal_rotation: bool = False,
    ) -> None:
        super().__init__()
        unserved(self, force_quantization_f32=(force_quantization_f32, True))
        if any(dtype in _LOW for dtype in allowed_dtypes):
            unserved(self, allowed_dtypes=(allowed_dtypes, (torch.float32, torch.float64)))
        bound = "clamp" if bound_hard_clamp else "tanh"
        self._counts = check_levels(levels, preserve_symmetry, bound)
        if noise_dropout > 0 and not preserve_symmetry:
            raise ValueError(
                f"noise_dropout must be 0 without preserve_symmetry=True, got {noise_dropout}"
            )
        keep = num_codebooks > 1 if keep_num_codebooks_dim is None else keep_num_codebooks_dim
        if num_codebooks > 1 and not keep:
            raise ValueError(
                f"keep_num_codebooks_dim must be True with num_codebooks={num_codebooks}, "
                f"got {keep_num_codebooks_dim}"
            )
        self.codebook_size = math.prod(self._counts)
        self._index_dtype = torch.int32 if self.codebook_size < 2**31 else torch.int64
        self.register_buffer(
            "_levels", torch.tensor(self._counts, dtype=torch.int32), persistent=False
        )
        basis = torch.tensor(basis_of(self._counts), dtype=self._index_dtype)
        self.register_buffer("_basis", basis, persistent=False)
        self.codebook_dim = len(self._counts)
        self.num_codebooks = num_codebooks
        self.effective_codebook_dim = self.codebook_dim * num_codebooks
        self.keep_num_codebooks_dim = keep
        self.dim = self.effective_codebook_dim if dim is None else dim
        self.scale = scale
        self.allowed_dtypes = allowed_dtypes
        self.force_quantization_f32 = force_quantization_f32
        self.channel_first = channel_first
        self.return_indices = return_indices
        self.preserve_symmetry = preserve_symmetry
        self.noise_dropout = noise_dropout
        self.bound_hard_clamp = bound_hard_clamp
        self.orthogonal_rotation = orthogonal_rotation
        self.has_projections = self.dim != self.effective_codebook_dim
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.has_projections:
            wide, narrow = self.dim, self.effective_codebook_dim
            self.project_in = nn.Linear(wide, narrow, bias=projection_has_bias)
            self.project_out = nn.Linear(narrow, wide, bias=projection_has_bias)
        if orthogonal_rotation:
            rotation = torch.empty(self.codebook_dim, self.codebook_dim)
            self.register_buffer("orthogonal_rot", nn.init.orthogonal_(rotation))

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        same = (
            *("dim", "num_codebooks", "keep_num_codebooks_dim", "scale", "allowed_dtypes"),
            *("channel_first", "return_indices", "force_quantization_f32", "preserve_symmetry"),
            *("noise_dropout", "bound_hard_clamp", "orthogonal_rotation"),
        )
        bias = not theirs.has_projections or theirs.project_in.bias is not None
        return {
            "levels": theirs._levels.tolist(),
            "projection_has_bias": bias,
            **{name: getattr(theirs, name) for name in same},
        }

    @property
    def implicit_codebook(self) -> Tensor:
        """(K, D) codes, made anew at every reading."""
        return self._indices_to_codes(torch.arange(self.codebook_size, device=self._levels.device))

    def indices_to_level_indices(self, indices: Tensor) -> Tensor:
        """The number of each channel's level, from 0: (..., D)."""
        return (indices[..., None] // self._basis) % self._levels

    def codes_to_indices(self, zhat: Tensor) -> Tensor:
        """Indices of codes (..., D)."""
        if zhat.shape[-1] != self.codebook_dim:
            raise ValueError(
                f"zhat must have {self.codebook_dim} channels, got shape {tuple(zhat.shape)}"
            )
        if self.preserve_symmetry:
            levels = (zhat + 1.0) * (self._levels - 1) / 2.0
        else:
            levels = zhat * (self._levels // 2) + self._levels // 2
        return (levels.round().long() * self._basis).sum(dim=-1).to(self._index_dtype)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """The vectors of indices, projected out, with the channels where forward returns them."""
        images = indices.ndim >= 3 + int(self.keep_num_codebooks_dim)
        codes = self._indices_to_codes(indices)
        if self.orthogonal_rotation:
            codes = codes @ self.orthogonal_rot.t()
        if self.keep_num_codebooks_dim:
            codes = codes.flatten(-2)
        codes = self.project_out(codes)
        return codes.movedim(-1, 1) if images or self.channel_first else codes

    def quantize(self, z: Tensor) -> Tensor:
        """The codes of z (..., D), before any projection. Differentiable."""
        return self._quantize(z)[0]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """(quantized, indices); None for the indices without ``return_indices``.

        z is (B, N, dim), or (B, dim, ...) with ``channel_first`` or at least four dimensions.
        """
        channels_first = self.channel_first or z.ndim >= 4
        if channels_first:
            z = z.movedim(1, -1)
        if z.shape[-1] != self.dim:
            raise ValueError(f"z must have {self.dim} channels, got {z.shape[-1]}")
        z = self.project_in(z).unflatten(-1, (self.num_codebooks, self.codebook_dim))
        if self.orthogonal_rotation:
            z = z @ self.orthogonal_rot
        dtype = z.dtype
        if dtype not in self.allowed_dtypes:
            z = z.float()
        codes, found = self._quantize(z)
        codes = self._with_noise(codes)
        if self.orthogonal_rotation:
            with torch.autocast(z.device.type, enabled=False):
                codes = codes @ self.orthogonal_rot.t()
        out = self.project_out(codes.flatten(-2).to(dtype))
        if channels_first:
            out = out.movedim(-1, 1)
        if not self.return_indices:
            return out, None
        indices = found.to(self._index_dtype)
        return out, indices if self.keep_num_codebooks_dim else indices.squeeze(-1)

    def _quantize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        out = quantize_scalars(
            z,
            None,
            self._counts,
            preserve_symmetry=self.preserve_symmetry,
            bound="clamp" if self.bound_hard_clamp else "tanh",
            channel_dim=z.ndim - 1,
            backend=None,
            count=False,
        )
        return out.quantized, out.indices

    def _indices_to_codes(self, indices: Tensor) -> Tensor:
        symmetric = self.preserve_symmetry
        return codes_of(indices, self._counts, preserve_symmetry=symmetric, channel_dim=-1)

    def _with_noise(self, codes: Tensor) -> Tensor:
        """In training, uniform noise on some elements; then all are clamped, as theirs are."""
        if not self.training or self.noise_dropout == 0.0:
            return codes
        noisy = torch.full_like(codes, self.noise_dropout).bernoulli_().bool()
        offset = torch.rand_like(codes) - 0.5
        return torch.where(noisy, codes + offset, codes).clamp(-1.0, 1.0)

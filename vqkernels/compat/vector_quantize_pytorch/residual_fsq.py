"""ResidualFSQ: levels of FSQ, each on a finer grid for what the ones before it have left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import _checks
from vqkernels._fsq import codes_of
from vqkernels.compat._peer import unserved
from vqkernels.compat.vector_quantize_pytorch._groups import Groups
from vqkernels.compat.vector_quantize_pytorch._level_dropout import LevelDropout
from vqkernels.compat.vector_quantize_pytorch.fsq import FSQ


class ResidualFSQ(LevelDropout):
    """``vector_quantize_pytorch.ResidualFSQ``: same calls, returns and state_dict.

    Level q quantizes ``r_q = r_(q-1) - sg(s_(q-1) FSQ(r_(q-1) / s_(q-1)))`` on a grid that is
    finer by the number of levels, ``s_q = levels ** -q``; ``quantized`` is the sum. Quantizer
    dropout drops the last levels of a training forward for the whole batch, with index -1.
    """

    replaces = ("vector_quantize_pytorch.residual_fsq.ResidualFSQ",)
    settings: ClassVar[tuple[str, ...]] = (
        "quantize_dropout",
        "quantize_dropout_cutoff_index",
        "quantize_dropout_multiple_of",
    )
    _drops_for_gradients_only = True

    scales: Tensor
    soft_clamp_input_value: Tensor | None

    def __init__(
        self,
        *,
        levels: Sequence[int],
        num_quantizers: int,
        dim: int | None = None,
        is_channel_first: bool = False,
        quantize_dropout: bool = False,
        quantize_dropout_cutoff_index: int = 0,
        quantize_dropout_multiple_of: int = 1,
        soft_clamp_input_value: float | list[float] | Tensor | None = None,
        bound_hard_clamp: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        # With these theirs cannot run either.
        served = {"num_codebooks": 1, "return_indices": True, "channel_first": False}
        for name, value in served.items():
            unserved(self, **{name: (kwargs.get(name, value), value)})
        if kwargs.get("keep_num_codebooks_dim"):
            unserved(self, keep_num_codebooks_dim=(True, False))
        self._set_dropout(
            num_quantizers,
            quantize_dropout,
            quantize_dropout_cutoff_index,
            quantize_dropout_multiple_of,
        )
        if bound_hard_clamp and soft_clamp_input_value is not None:
            raise ValueError(
                "soft_clamp_input_value must be None with bound_hard_clamp=True, "
                f"got {soft_clamp_input_value}"
            )
        width = len(levels)
        dim = width if dim is None else dim
        self.has_projections = dim != width
        self.project_in = nn.Linear(dim, width) if self.has_projections else nn.Identity()
        self.project_out = nn.Linear(width, dim) if self.has_projections else nn.Identity()
        self.is_channel_first = is_channel_first
        self.levels = levels
        self.layers = nn.ModuleList(
            FSQ(
                levels,
                dim=width,
                preserve_symmetry=True,
                bound_hard_clamp=bound_hard_clamp,
                **kwargs,
            )
            for _ in range(num_quantizers)
        )
        self.codebook_size = self._layers[0].codebook_size
        counts = torch.tensor(levels)
        scales = [counts.float() ** -q for q in range(num_quantizers)]
        self.register_buffer("scales", torch.stack(scales), persistent=False)
        limit: Any = 1 + 1 / (counts - 1) if bound_hard_clamp else soft_clamp_input_value
        if isinstance(limit, (list, float)):
            limit = torch.tensor(limit)
        self.register_buffer("soft_clamp_input_value", limit, persistent=False)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        layer = FSQ.arguments_of(theirs.layers[0])
        of_layers = ("scale", "allowed_dtypes", "force_quantization_f32", "noise_dropout")
        clamp = theirs.layers[0].bound_hard_clamp
        return {
            "dim": theirs.project_in.in_features if theirs.has_projections else layer["dim"],
            "soft_clamp_input_value": None if clamp else theirs.soft_clamp_input_value,
            "bound_hard_clamp": clamp,
            "levels": theirs.levels,
            "is_channel_first": theirs.is_channel_first,
            **cls._dropout_of(theirs),
            **{name: layer[name] for name in (*of_layers, "orthogonal_rotation")},
        }

    @property
    def _layers(self) -> list[FSQ]:
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def codebooks(self) -> Tensor:
        """(Q, K, D) codes, each in its level's own unit; made anew at every reading."""
        return torch.stack([layer.implicit_codebook for layer in self._layers])

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """(Q, *positions, D) of (*positions, q) indices; zeros where one is -1 or left out."""
        codes = [
            codes_of(level, layer._counts, preserve_symmetry=True, channel_dim=-1) * scale
            for level, layer, scale in zip(
                self._by_level(indices), self._layers, self.scales, strict=True
            )
        ]
        return torch.stack(codes)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        out: Tensor = self.project_out(self.get_codes_from_indices(indices).sum(dim=0))
        return out

    def forward(
        self,
        x: Tensor,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
    ) -> tuple[Tensor, ...]:
        """(quantized, indices (B, N, Q)), and the codes of all levels where asked for.

        x is (B, N, dim), or (B, dim, ...) with ``is_channel_first``: indices are (B, Q, ...) then.
        """
        shape = x.shape
        if self.is_channel_first:
            x = x.movedim(1, -1).flatten(1, -2)
        x = self.project_in(x)
        if self.soft_clamp_input_value is not None:
            x = (x / self.soft_clamp_input_value).tanh() * self.soft_clamp_input_value
        quantized, indices = self._levels_of(
            x, self._kept(x.device, rand_quantize_dropout_fixed_seed)
        )
        codes = [self.get_codes_from_indices(indices)] if return_all_codes else []
        quantized = self.project_out(quantized)
        if self.is_channel_first:
            quantized = quantized.unflatten(1, shape[2:]).movedim(-1, 1)
            indices = indices.unflatten(1, shape[2:]).movedim(-1, 1)
            codes = [code.unflatten(2, shape[2:]) for code in codes]
        return (quantized, indices, *codes)

    def _levels_of(self, x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        quantized, residual = torch.zeros_like(x), x
        found: list[Tensor] = []
        with torch.autocast(x.device.type, enabled=False):
            for layer, scale in list(zip(self._layers, self.scales, strict=True))[:kept]:
                part, indices = layer(residual / scale)
                assert indices is not None
                part = part * scale
                residual = residual - part.detach()
                quantized = quantized + part
                found.append(indices)
        dropped = torch.full(x.shape[:2], -1, device=x.device)
        found += [dropped] * (self.num_quantizers - kept)
        return quantized, torch.stack(found, dim=-1)


class GroupedResidualFSQ(Groups[ResidualFSQ]):
    """``vector_quantize_pytorch.GroupedResidualFSQ``: the channels in parts, one ResidualFSQ each.

    As in theirs ``accept_image_fmap`` says where the channels are cut; the levels need
    ``is_channel_first=True`` beside it.
    """

    replaces = ("vector_quantize_pytorch.residual_fsq.GroupedResidualFSQ",)

    def __init__(
        self, *, dim: int, groups: int = 1, accept_image_fmap: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(
            dim, groups, accept_image_fmap, lambda width: ResidualFSQ(dim=width, **kwargs)
        )
        self.codebook_size = self._parts[0].codebook_size

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {**ResidualFSQ.arguments_of(theirs.rvqs[0]), **cls._groups_of(theirs)}

    def forward(self, x: Tensor, return_all_codes: bool = False) -> tuple[Any, ...]:
        """(quantized, indices (G, B, N, Q)), and where asked for a tuple of each group's codes."""
        _checks.vectors(x, self.dim, self.split_dim)
        seed = self._seed(x.device)
        outs = [
            part(piece, return_all_codes, seed)
            for part, piece in zip(self._parts, x.chunk(self.groups, self.split_dim), strict=True)
        ]
        quantized, indices, *codes = zip(*outs, strict=True)
        return (torch.cat(quantized, dim=self.split_dim), torch.stack(indices), *codes)

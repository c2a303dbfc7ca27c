"""ResidualLFQ: LFQ layers of halved scales, each on what the ones before have left."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import _checks
from vqkernels.compat.vector_quantize_pytorch._groups import Groups
from vqkernels.compat.vector_quantize_pytorch._level_dropout import LevelDropout
from vqkernels.compat.vector_quantize_pytorch.lfq import LFQ

_OF_LEVELS = frozenset({"dim", "codebook_size", "codebook_scale", "soft_clamp_input_value"})


class ResidualLFQ(LevelDropout):
    """``vector_quantize_pytorch.ResidualLFQ``: same calls, returns and state_dict.

    Level l is an ``LFQ`` with ``codebook_scale=2^-l``, on what the levels before have left
    (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1). Arguments besides those below are those
    of ``LFQ``.

    Args:
        dim: channels of x; projected where it is not log2(codebook_size).
        num_quantizers: Q, number of levels.
        codebook_size: of every level, a power of 2.
        quantize_dropout: a training forward keeps a random number of levels, from the first; the
            others have index -1 and loss 0. One number for the whole batch, and for all ranks.
        quantize_dropout_cutoff_index, quantize_dropout_multiple_of: at least so many levels and
            one are kept, and their number is rounded up to a multiple.
        soft_clamp_input_value: of the first level, halved from level to level.
        bug_compatible: False mends, besides the slips of LFQ, that the codes of
            ``get_codes_from_indices`` are neither on the sphere nor out of the rotation: with
            ``spherical`` or ``orthogonal_rotation`` they are not those of ``forward``.
    """

    replaces = ("vector_quantize_pytorch.residual_lfq.ResidualLFQ",)
    settings: ClassVar[tuple[str, ...]] = (
        "quantize_dropout",
        "quantize_dropout_cutoff_index",
        "quantize_dropout_multiple_of",
    )
    _drops_for_gradients_only = True

    def __init__(
        self,
        *,
        dim: int,
        num_quantizers: int,
        codebook_size: int,
        quantize_dropout: bool = False,
        quantize_dropout_cutoff_index: int = 0,
        quantize_dropout_multiple_of: int = 1,
        soft_clamp_input_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        _checks.integer_at_least("dim", dim, 1)
        _checks.integer_at_least("num_quantizers", num_quantizers, 1)
        _checks.integer_at_least("codebook_size", codebook_size, 2)
        self._set_dropout(
            num_quantizers,
            quantize_dropout,
            quantize_dropout_cutoff_index,
            quantize_dropout_multiple_of,
        )
        bits = codebook_size.bit_length() - 1
        self.has_projections = bits != dim
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.has_projections:
            self.project_in = nn.Linear(dim, bits)
            self.project_out = nn.Linear(bits, dim)
        self.layers = nn.ModuleList(
            LFQ(
                dim=bits,
                codebook_size=codebook_size,
                codebook_scale=2.0**-level,
                soft_clamp_input_value=(
                    None if soft_clamp_input_value is None else soft_clamp_input_value / 2**level
                ),
                **kwargs,
            )
            for level in range(num_quantizers)
        )
        if any(layer.has_projections for layer in self._levels()):
            raise ValueError(f"num_codebooks must be 1 and has_projections not True, got {kwargs}")

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        first = theirs.layers[0]
        shared = LFQ.arguments_of(first)
        return {
            **{name: value for name, value in shared.items() if name not in _OF_LEVELS},
            **cls._dropout_of(theirs),
            "dim": theirs.project_in.in_features if theirs.has_projections else first.dim,
            "codebook_size": first.codebook_size,
            "soft_clamp_input_value": first.soft_clamp_input_value,
        }

    @property
    def codebooks(self) -> Tensor:
        """(Q, K, D), made at every reading."""
        return torch.stack([layer.codebook for layer in self._levels()])

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
    ) -> tuple[Tensor, ...]:
        """Quantizes x, (B, N, dim), by all levels.

        Args:
            mask: as of ``LFQ``.
            return_all_codes: also returns what ``get_codes_from_indices`` makes of the indices.
            rand_quantize_dropout_fixed_seed: decides how many levels are kept, as it does there.

        Returns:
            (quantized, indices int64 (*positions, Q), losses (Q,)[, all_codes]).
        """
        left = self.project_in(x)
        total = torch.zeros_like(left)
        indices, losses = [], []
        # Rows are float32 in every level: a product in a rotation must not make them less.
        with torch.autocast(x.device.type, enabled=False):
            for layer in self._levels()[: self._kept(x.device, rand_quantize_dropout_fixed_seed)]:
                quantized, chosen, loss = layer(left, mask=mask)
                left = left - quantized.detach()
                total = total + quantized
                indices.append(chosen)
                losses.append(loss)
        for _ in range(len(indices), self.num_quantizers):
            indices.append(torch.full_like(indices[0], -1))
            losses.append(torch.zeros_like(losses[0]))
        returned = (
            self.project_out(total),
            torch.stack(indices, dim=-1),
            torch.stack(losses, dim=-1),
        )
        if not return_all_codes:
            return returned
        return (*returned, self.get_codes_from_indices(returned[1]))

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """(Q, *positions, D). Index -1 gives zeros; so do levels that ``indices`` lack, which only
        a module with quantize_dropout takes.
        """
        codes = [
            layer._codes(level, raw=layer.bug_compatible)
            for level, layer in zip(self._by_level(indices), self._levels(), strict=True)
        ]
        return torch.stack(codes)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What ``forward`` has returned as quantized, up to rounding."""
        output: Tensor = self.project_out(self.get_codes_from_indices(indices).sum(dim=0))
        return output

    def _levels(self) -> list[LFQ]:
        return list(self.layers)  # type: ignore[arg-type]


class GroupedResidualLFQ(Groups[ResidualLFQ]):
    """``vector_quantize_pytorch.GroupedResidualLFQ``: same calls, returns and state_dict.

    ``groups`` residual quantizers on equal parts of the channels, dropping the same levels.

    Args:
        dim: channels of x, a multiple of ``groups``.
        groups: G, at least 1.
        accept_image_fmap: the channels are dimension 1.
        kwargs: of every ``ResidualLFQ``.
    """

    replaces = ("vector_quantize_pytorch.residual_lfq.GroupedResidualLFQ",)

    def __init__(
        self, *, dim: int, groups: int = 1, accept_image_fmap: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(
            dim, groups, accept_image_fmap, lambda width: ResidualLFQ(dim=width, **kwargs)
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {**ResidualLFQ.arguments_of(theirs.rvqs[0]), **cls._groups_of(theirs)}

    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_all_codes: bool = False
    ) -> tuple[Any, ...]:
        """Quantizes every part of x.

        Returns:
            (quantized, indices int64 (G, *positions, Q), losses (G, Q)[, all_codes, a tuple of G
            tensors (Q, *positions, D)]).
        """
        _checks.vectors(x, self.dim, self.split_dim)
        seed = self._seed(x.device)
        parts = [
            rvq(part, mask, return_all_codes, seed)
            for rvq, part in zip(self._parts, x.chunk(self.groups, self.split_dim), strict=True)
        ]
        quantized, indices, losses, *codes = zip(*parts, strict=True)
        joined = torch.cat(quantized, dim=self.split_dim)
        return (joined, torch.stack(indices), torch.stack(losses), *codes)

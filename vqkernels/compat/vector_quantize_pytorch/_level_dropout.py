"""Quantizer dropout: how many levels a training forward of a residual quantizer keeps."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import _checks, distributed, ops
from vqkernels.compat._peer import Peer


class SeedStream:
    """Seeds of quantizer dropout, one per forward and the same on all ranks.

    torch's generator gives the first one, which the ranks agree on by one collective; the others
    follow from it, so that no later forward waits for a device or for another rank.
    """

    def __init__(self) -> None:
        self._random: random.Random | None = None

    def next(self, device: torch.device) -> int:
        if self._random is None:
            seed = torch.randint(10_000, (), device=device)
            group = distributed.group_of(None)
            if group is not None:
                ops.all_reduce_(seed, group.name)
            self._random = random.Random(int(seed))
        return self._random.randrange(10_000)


class LevelDropout(Peer):
    """The options of their residual quantizers that drop levels, the last ones first.

    Attributes:
        num_quantizers: Q, number of levels.
        quantize_dropout: whether a training forward keeps a random number of levels, one for the
            whole batch and for all ranks: at least ``quantize_dropout_cutoff_index`` + 1, all
            numbers equally likely before they are rounded up to a multiple of
            ``quantize_dropout_multiple_of``.
    """

    # Whether theirs drops none where no gradient is asked for.
    _drops_for_gradients_only: ClassVar[bool] = False

    def _set_dropout(self, levels: int, drops: bool, cutoff: int, multiple_of: int) -> None:
        _checks.integer_at_least("quantize_dropout_cutoff_index", cutoff, 0)
        _checks.integer_at_least("quantize_dropout_multiple_of", multiple_of, 1)
        if drops and cutoff >= levels > 1:
            raise ValueError(
                f"quantize_dropout_cutoff_index must be below num_quantizers={levels}, "
                f"got {cutoff}"
            )
        self.num_quantizers = levels
        self.quantize_dropout = drops and levels > 1
        self.quantize_dropout_cutoff_index = cutoff
        self.quantize_dropout_multiple_of = multiple_of
        self._seeds = SeedStream()

    @staticmethod
    def _dropout_of(theirs: Any) -> dict[str, Any]:
        """Their arguments of those names, and the number of levels."""
        names = (
            *("num_quantizers", "quantize_dropout", "quantize_dropout_cutoff_index"),
            "quantize_dropout_multiple_of",
        )
        return {name: getattr(theirs, name) for name in names}

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """(Q, *positions, D) of (*positions, q) indices; zeros where one is -1 or left out."""
        raise NotImplementedError

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What ``forward`` has returned as quantized, up to rounding, until a codebook moves."""
        raise NotImplementedError

    @property
    def drops(self) -> bool:
        """Whether a forward would drop levels now."""
        asked = torch.is_grad_enabled() or not self._drops_for_gradients_only
        return self.training and self.quantize_dropout and asked

    def _kept(self, device: torch.device, seed: int | None) -> int:
        """Levels of a forward; ``seed`` decides as theirs does."""
        if not self.drops:
            return self.num_quantizers
        seed = self._seeds.next(device) if seed is None else seed
        cutoff, multiple_of = self.quantize_dropout_cutoff_index, self.quantize_dropout_multiple_of
        last = random.Random(seed).randrange(cutoff, self.num_quantizers)
        return min(-(-(last + 1) // multiple_of) * multiple_of, self.num_quantizers)

    def _by_level(self, indices: Tensor) -> tuple[Tensor, ...]:
        """(*positions, q) by levels; -1 for those that it lacks, which needs quantize_dropout."""
        _checks.integers("indices", indices)
        missing = self.num_quantizers - indices.shape[-1]
        if missing < 0 or (missing and not self.quantize_dropout):
            raise ValueError(
                f"indices must have shape (*positions, {self.num_quantizers}) without "
                f"quantize_dropout, got {tuple(indices.shape)}"
            )
        return nn.functional.pad(indices, (0, missing), value=-1).unbind(-1)

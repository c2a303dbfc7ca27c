"""Groups: equal parts of the channels, with a residual quantizer for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vqkernels import _checks
from vqkernels.compat._peer import Peer
from vqkernels.compat.vector_quantize_pytorch._level_dropout import LevelDropout, SeedStream

_Part = TypeVar("_Part", bound=LevelDropout)


class Groups(Peer, Generic[_Part]):
    """What their grouped residual quantizers share. All groups drop the same levels.

    Args:
        dim: channels of x, a multiple of ``groups``.
        groups: G, at least 1.
        accept_image_fmap: the channels are dimension 1.
        make: the quantizer of a group; called with the channels of one.

    Attributes:
        rvqs: ModuleList of the G quantizers.
    """

    def __init__(
        self, dim: int, groups: int, accept_image_fmap: bool, make: Callable[[int], _Part]
    ) -> None:
        super().__init__()
        _checks.integer_at_least("groups", groups, 1)
        _checks.integer_at_least("dim", dim, 1)
        if dim % groups:
            raise ValueError(f"dim must be a multiple of groups={groups}, got {dim}")
        self.dim = dim
        self.groups = groups
        self.accept_image_fmap = accept_image_fmap
        self.rvqs = nn.ModuleList(make(dim // groups) for _ in range(groups))
        self._seeds = SeedStream()

    @staticmethod
    def _groups_of(theirs: Any) -> dict[str, Any]:
        """Their arguments of those names."""
        return {name: getattr(theirs, name) for name in ("dim", "groups", "accept_image_fmap")}

    @property
    def codebooks(self) -> Tensor:
        """(G, Q, K, D). The sizes must be equal."""
        books: list[Any] = [part.codebooks for part in self._parts]
        return torch.stack(books)

    @property
    def split_dim(self) -> int:
        """The dimension of x that holds the channels."""
        return 1 if self.accept_image_fmap else -1

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """(G, Q, *positions, D) of (G, *positions, q) indices."""
        parts = zip(self._parts, indices, strict=True)
        return torch.stack([part.get_codes_from_indices(own) for part, own in parts])

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What ``forward`` has returned as quantized, up to rounding, until a codebook moves."""
        parts = zip(self._parts, indices, strict=True)
        outputs = [part.get_output_from_indices(own) for part, own in parts]
        return torch.cat(outputs, dim=self.split_dim)

    def _seed(self, device: torch.device) -> int | None:
        """Of the dropout of all groups in this forward."""
        return self._seeds.next(device) if self._parts[0].drops else None

    @property
    def _parts(self) -> list[_Part]:
        return list(self.rvqs)  # type: ignore[arg-type]

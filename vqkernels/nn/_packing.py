"""Packing: what the search derives from the codebook of a module, kept from call to call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqkernels import ops
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.options import Update


class Packing(FullPrecision):
    """A codebook that is packed from the second call that finds it unmoved.

    While it moves its cells are kept. They are found again after 1, 2, 4, ... searches, because a
    codebook moves most in the beginning, and when searches find that they no longer fit.
    """

    codebook: Tensor
    update: Update
    metric: str
    backend: str | None
    _prepared: list[Tensor] | None
    _seen: tuple[int, int] | None  # where the codebook lay at the last call, and its version
    _partition: list[Tensor] | None
    _moves_seen: int  # searches while the codebook moves

    def __init__(self) -> None:
        super().__init__()
        self._drop_packed()

    def _packed(self) -> list[Tensor] | None:
        """The codebook packed for the search if it has not moved since the last call, or cells.

        Where it lies and its version only say when packing is worth it. No result depends on them:
        a search compares the packed copy with the codebook, and leaves it where they differ.
        """
        if torch.compiler.is_compiling():
            return self._prepared or self._partition
        codebook = self.codebook
        if type(codebook) not in (Tensor, nn.Parameter):
            return None
        if self.training and self.update is not None:
            self._prepared = self._seen = None
            return self._cells()
        version = 0 if codebook.is_inference() else codebook._version
        seen = (codebook.data_ptr(), version)
        if self._seen != seen:
            self._prepared, self._seen = None, seen
            return self._partition
        if self._prepared is None:
            codes = self._plain_codes()
            self._prepared = _kept(ops.prepare(codes, self.metric, self.backend, None))
        return self._prepared

    def _cells(self) -> list[Tensor] | None:
        """The cells of a codebook that moves."""
        self._moves_seen += 1
        due = self._moves_seen & (self._moves_seen - 1) == 0
        if due or ops.is_worn(self._partition or [], self.codebook):
            self._partition = _kept(ops.partition(self._plain_codes(), self.backend))
        return self._partition

    def _plain_codes(self) -> Tensor:
        codes = self.codebook.detach()
        return ops.normalize_codes(codes)[0] if self.metric == "cosine" else codes

    def _drop_packed(self) -> None:
        self._prepared = None
        self._seen = None
        self._partition = None
        self._moves_seen = 0

    def _apply(self, *args: Any, **kwargs: Any) -> Packing:
        self._drop_packed()
        super()._apply(*args, **kwargs)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._drop_packed()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        nothing = {"_prepared": None, "_seen": None, "_partition": None, "_moves_seen": 0}
        return {**self.__dict__, **nothing}


def _kept(parts: list[Tensor]) -> list[Tensor] | None:
    """What can be kept: not traced tensors, and not nothing."""
    return parts if parts and all(type(part) is Tensor for part in parts) else None

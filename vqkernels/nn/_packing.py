"""Packing: the codebook of a module, packed for the search while it does not move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqkernels import ops
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.options import Update


class Packing(FullPrecision):
    """A codebook that is packed from the second call that finds it unmoved."""

    codebook: Tensor
    update: Update
    metric: str
    backend: str | None
    _prepared: list[Tensor] | None
    _seen: tuple[int, int] | None  # where the codebook lay at the last call, and its version

    def __init__(self) -> None:
        super().__init__()
        self._drop_packed()

    def _packed(self) -> list[Tensor] | None:
        """The codebook packed for the search, if it has not moved since the last call.

        Where it lies and its version only say when packing is worth it. No result depends on them:
        a search compares the packed copy with the codebook, and leaves it where they differ.
        """
        if torch.compiler.is_compiling():
            return self._prepared
        codebook = self.codebook
        if type(codebook) not in (Tensor, nn.Parameter):
            return None
        version = 0 if codebook.is_inference() else codebook._version
        seen = (codebook.data_ptr(), version)
        if self._seen != seen or (self.training and self.update is not None):
            self._drop_packed()
            self._seen = seen
        elif self._prepared is None:
            with torch.no_grad():
                codes = codebook.detach()
                if self.metric == "cosine":
                    codes, _ = ops.normalize_codes(codes)
                parts = ops.prepare(codes, self.metric, self.backend)
            if all(type(part) is Tensor for part in parts):  # not traced ones
                self._prepared = parts
        return self._prepared

    def _drop_packed(self) -> None:
        self._prepared = None
        self._seen = None

    def _apply(self, *args: Any, **kwargs: Any) -> Packing:
        self._drop_packed()
        super()._apply(*args, **kwargs)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._drop_packed()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None, "_seen": None}

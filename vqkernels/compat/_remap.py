"""Remapped: indices counted within a subset of the codes, after training."""

from __future__ import annotations

import ast
import os
from typing import Any

import torch
from torch import Tensor, nn

from vqkernels import _checks

_MAGIC = b"\x93NUMPY"  # two bytes with the version follow
_DTYPES = {
    "<i8": torch.int64,
    "<i4": torch.int32,
    "<i2": torch.int16,
    "|i1": torch.int8,
    "|u1": torch.uint8,
}


class Remapped(nn.Module):
    """What the quantizers of VQGAN do with ``remap``, a file of the codes that are in use.

    Attributes:
        remap: the file, or None.
        used: int64 (U,) buffer, the codes in the file; without ``remap`` there is none.
        re_embed: number of indices that ``remap_to_used`` can return.
        unknown_index: what a code that is not in ``used`` becomes: "random" or an integer.
    """

    used: Tensor

    def _set_remap(
        self, remap: str | os.PathLike[str] | None, unknown_index: str | int, num_codes: int
    ) -> None:
        if not isinstance(unknown_index, int) or isinstance(unknown_index, bool):
            _checks.one_of("unknown_index", unknown_index, ("random", "extra"))
        self.remap = remap
        self.re_embed = num_codes
        self.unknown_index = unknown_index
        if remap is None:
            return
        self.register_buffer("used", _codes_in(remap))
        self.re_embed = self.used.shape[0]
        if unknown_index == "extra":
            self.unknown_index = self.re_embed
            self.re_embed += 1

    @staticmethod
    def _remap_of(theirs: Any) -> dict[str, Any]:
        """The arguments ``remap`` and ``unknown_index`` of one of theirs."""
        if theirs.remap is None:
            return {"remap": None}
        extra = theirs.re_embed > theirs.used.shape[0]
        return {"remap": theirs.remap, "unknown_index": "extra" if extra else theirs.unknown_index}

    def remap_to_used(self, inds: Tensor) -> Tensor:
        """Codes to their places in ``used``, any shape of at least 2 dimensions.

        Of places that hold the same code the first. A code that is in none becomes
        ``unknown_index``, or a place drawn from torch's generator if that is "random".
        """
        _check_batch(inds)
        used = self.used.to(inds)
        ordered, places = used.sort(stable=True)
        at = torch.searchsorted(ordered, inds.contiguous()).clamp(max=len(used) - 1)
        if self.unknown_index == "random":
            other = torch.randint_like(inds, self.re_embed)
        else:
            other = torch.full_like(inds, int(self.unknown_index))
        return torch.where(ordered[at] == inds, places[at], other)

    def unmap_to_all(self, inds: Tensor) -> Tensor:
        """Places in ``used`` to codes, any shape of at least 2 dimensions.

        The extra place of ``unknown_index="extra"`` becomes that of place 0.
        """
        _check_batch(inds)
        used = self.used.to(inds)
        if self.re_embed > len(used):
            inds = torch.where(inds >= len(used), 0, inds)
        return used.gather(0, inds.reshape(-1)).reshape(inds.shape)


def _codes_in(path: str | os.PathLike[str]) -> Tensor:
    """The vector in a ``.npy`` file, in the format that ``numpy.save`` documents."""
    with open(path, "rb") as file:
        start = file.read(len(_MAGIC) + 2)
        if not start.startswith(_MAGIC):
            raise ValueError(f"remap must be a .npy file, got {os.fspath(path)!r}")
        length = file.read(2 if start[-2] == 1 else 4)
        header = ast.literal_eval(file.read(int.from_bytes(length, "little")).decode())
        values = file.read()
    dtype = _DTYPES.get(header["descr"])
    if dtype is None or len(header["shape"]) != 1 or header["shape"][0] < 1:
        raise ValueError(
            "remap must hold a vector of at least one integer, "
            f"got shape {header['shape']} of {header['descr']!r}"
        )
    return torch.frombuffer(bytearray(values), dtype=dtype)


def _check_batch(inds: Tensor) -> None:
    _checks.integers("inds", inds)
    if inds.ndim < 2:
        raise ValueError(f"inds must have at least 2 dimensions, got shape {tuple(inds.shape)}")

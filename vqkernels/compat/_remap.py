"""Codebooks of which only some codes are used (``remap`` of taming-transformers)."""

from __future__ import annotations

import ast
import os
import sys

import torch
from torch import Tensor

_MAGIC = b"\x93NUMPY"


def read_npy(path: str | os.PathLike[str]) -> Tensor:
    """The integers of a ``.npy`` file (format 1 to 3), int64, one dimension.

    Raises:
        ValueError: it holds something else.
    """
    with open(path, "rb") as file:
        content = file.read()
    if not content.startswith(_MAGIC):
        raise ValueError(f"remap must be a .npy file, got {path}")
    wide = content[6] > 1  # the major version: a length of two or of four bytes
    start = 12 if wide else 10
    end = start + int.from_bytes(content[8:start], "little")
    header = ast.literal_eval(content[start:end].decode("utf8" if wide else "latin1").strip())
    kind, shape = header["descr"], header["shape"]
    if kind[1:2] not in ("i", "u") or len(shape) != 1:
        raise ValueError(f"remap must hold integers in one dimension, got {kind} of shape {shape}")
    order = {"<": "little", ">": "big", "|": "little", "=": sys.byteorder}[kind[0]]
    size = int(kind[2:])
    numbers = [
        int.from_bytes(content[at : at + size], order, signed=kind[1] == "i")  # type: ignore[arg-type]
        for at in range(end, end + size * shape[0], size)
    ]
    return torch.tensor(numbers, dtype=torch.int64)


def to_used(indices: Tensor, used: Tensor, unknown: int | None) -> Tensor:
    """Places in ``used`` of the given codes, the first of equal ones.

    A code that is not there gets ``unknown``, or with None a random place. No array has the size
    of both arguments.
    """
    order = used.argsort(stable=True)
    at = torch.searchsorted(used[order], indices).clamp(max=len(used) - 1)
    places = order[at]
    if unknown is None:
        other = torch.randint_like(places, len(used))
    else:
        other = torch.full_like(places, unknown)
    return torch.where(used[places] == indices, places, other)


def to_all(places: Tensor, used: Tensor) -> Tensor:
    """The codes at ``places``; the extra place after the last one is that of the first code."""
    return used[torch.where(places >= len(used), 0, places)]

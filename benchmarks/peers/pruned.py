"""vqkernels with cells of codes and without them, and what cells cost beside the search."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import forcing
from torch import Tensor

import vqkernels as vq
from benchmarks.peers import ours
from benchmarks.peers.provider import Call, Provider
from vqkernels import ops


def search(cells: int | None) -> Callable[[Tensor, Tensor], Call]:
    """In a prepared codebook; ``cells`` as for ``vqkernels.prepare``."""

    def build(x: Tensor, codebook: Tensor) -> Call:
        prepared = vq.prepare(codebook, cells=cells)
        return lambda: vq.nearest_code(x, prepared).indices

    return build


def visited(x: Tensor, codebook: Tensor) -> dict[str, Any]:
    """The share of all pairs of a row and a code that the search looks at; None: it takes all."""
    return {"visited_share": vq.explain(x, vq.prepare(codebook)).visited_share}


def moved(x: Tensor, codebook: Tensor) -> Call:
    """In codes that have moved since their cells were found: these are brought up to date."""
    cells = ops.partition(codebook * 1.001, None)
    return lambda: ops.nearest_code(x, codebook, cells, "l2", 1, None)[0]


def prepare(x: Tensor, codebook: Tensor) -> Call:
    return lambda: (x, vq.prepare(codebook))


def found(searched: tuple[Tensor, vq.PreparedCodebook]) -> Tensor:
    return vq.nearest_code(*searched).indices


def dense_training_step(x: Tensor, codebook: Tensor) -> Call:
    step = ours.training_step(x, codebook)

    def dense() -> Tensor:
        with forcing.pruning("never"):
            indices: Tensor = step()
        return indices

    return dense


_ours = functools.partial(Provider, package="vqkernels", module="vqkernels", devices=("cpu",))
SEARCH = (
    _ours("vqkernels", search(None), facts=visited),
    _ours("vqkernels dense", search(0)),
    _ours("vqkernels moved", moved),
    _ours("vqkernels prepare", prepare, indices=found, searches=False),
)
TRAINING = (
    _ours("vqkernels", ours.training_step),
    _ours("vqkernels dense", dense_training_step),
)

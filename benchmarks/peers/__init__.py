"""The tables of contenders, by what is measured. Ours is the first of each, and called OURS."""

from __future__ import annotations

from benchmarks.peers import (
    converted,
    gpu_search,
    library_search,
    ours,
    pruned,
    residual,
    torch_search,
    training,
)
from benchmarks.peers.provider import Call, Provider, UnavailableError

OURS = "vqkernels"
TABLES: dict[str, tuple[Provider, ...]] = {
    "nearest_code": (
        *ours.SEARCH,
        *torch_search.SEARCH,
        *library_search.SEARCH,
        *gpu_search.SEARCH,
    ),
    "residual_quantize": (*ours.RESIDUAL, *residual.RESIDUAL),
    "training_step": (*ours.TRAINING, *training.TRAINING),
    "converted_step": converted.CONVERTED,
    "pruned_search": (*pruned.SEARCH, *library_search.FAISS),
    "pruned_step": pruned.TRAINING,
}


def find(table: str, name: str) -> Provider:
    return next(provider for provider in TABLES[table] if provider.name == name)


__all__ = ["OURS", "TABLES", "Call", "Provider", "UnavailableError", "find"]

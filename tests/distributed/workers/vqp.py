"""The stand-ins for vector-quantize-pytorch, which learn over all ranks as theirs do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from ranks import RANK, SIZE, assert_close, assert_ranks_equal, parts, reductions
from torch import nn

from vqkernels.compat.vector_quantize_pytorch import (
    GroupedResidualVQ,
    ResidualVQ,
    VectorQuantize,
)

D, K = 8, 16
MODULES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "one": (VectorQuantize, {}),
    "heads": (VectorQuantize, {"heads": 2, "codebook_dim": 4, "separate_codebook_per_head": True}),
    "cosine": (VectorQuantize, {"use_cosine_sim": True}),
    "levels": (ResidualVQ, {"num_quantizers": 4}),
    "shared levels": (ResidualVQ, {"num_quantizers": 4, "shared_codebook": True}),
    "groups": (GroupedResidualVQ, {"num_quantizers": 3, "groups": 2}),
}
LEARNING = {"kmeans_init": True, "threshold_ema_dead_code": 0.5}


def made(name: str, seed: int, **more: Any) -> nn.Module:
    torch.manual_seed(seed)
    kind, options = MODULES[name]
    return kind(dim=D, codebook_size=K, **{**options, **more})


def ranks_stay_alike() -> None:
    """From different seeds, on parts of unequal size, with k-means and revival."""
    for name in MODULES:
        for more in ({}, LEARNING):
            module = made(name, seed=RANK, **more)
            for step in range(4):
                module(parts([20, 3], seed=step, d=D)[RANK][None])
            assert_ranks_equal(module)


def parts_learn_what_the_whole_does() -> None:
    for name in MODULES:
        module = made(name, seed=0)
        alone = copy.deepcopy(module)
        for book in alone.modules():
            if hasattr(book, "sync"):
                book.sync = False
        for step in range(3):
            batches = parts([20, 9], seed=step, d=D)
            module(batches[RANK][None])
            alone(torch.cat(batches)[None])
        assert_close(module, alone)


def an_empty_mask_does_not_hang() -> None:
    for name in MODULES:
        module = made(name, seed=0, **LEARNING)
        for _ in range(2):
            module(torch.randn(1, 9, D), mask=torch.full((1, 9), RANK == 0))
        assert_ranks_equal(module)


def a_step_is_one_collective() -> None:
    """Of all levels and groups, after the first step; a frozen codebook needs none."""
    x = torch.randn(1, 9, D)
    for name in MODULES:
        for more in ({}, LEARNING):
            module = made(name, seed=0, **more)
            module(x)
            assert reductions(lambda m=module: m(x)) == 1, name
            assert reductions(lambda m=module: m(x, freeze_codebook=True)) == 0, name
            module.eval()
            assert reductions(lambda m=module: m(x)) == 0, name


def all_ranks_drop_the_same_levels() -> None:
    module = made("levels", seed=RANK, quantize_dropout=True)
    for step in range(6):
        _, indices, _ = module(parts([9], seed=step, d=D)[RANK][None])
        kept = (indices[0, 0] >= 0).sum()
        everyone = [torch.empty_like(kept) for _ in range(SIZE)]
        torch.distributed.all_gather(everyone, kept)
        assert len({int(each) for each in everyone}) == 1


def ranks_learn_apart_when_told() -> None:
    module = made("one", seed=RANK, sync_codebook=False)
    assert reductions(lambda: module(torch.randn(1, 9, D))) == 0


CHECKS = [
    ranks_stay_alike,
    parts_learn_what_the_whole_does,
    an_empty_mask_does_not_hang,
    a_step_is_one_collective,
    all_ranks_drop_the_same_levels,
    ranks_learn_apart_when_told,
]

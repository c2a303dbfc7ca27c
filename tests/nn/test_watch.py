"""How well a codebook is used is known from its counts, and a collapse is reported."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

import vqkernels as vq

K, D, N = 32, 4, 64


def batch(seed: int, codes: Tensor) -> Tensor:
    """Rows that lie on the given codes, each as often as the others."""
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    return codes[order % len(codes)]


def quantizer(**options: object) -> vq.nn.VectorQuantizer:
    init = torch.arange(K)[:, None].expand(K, D).float()
    defaults = {"init": init, "update": vq.EMA(0.9), "revive": None}
    return vq.nn.VectorQuantizer(K, D, **{**defaults, **options})


def trained_on(module: nn.Module, codes: int, steps: int) -> None:
    init = torch.arange(K)[:, None].expand(K, D).float()
    for step in range(steps):
        module(batch(step, init[:codes]))


@pytest.mark.parametrize("update", [vq.EMA(0.9), vq.EMA(0.9, every=3), vq.Gradient()])
def test_active_are_the_codes_chosen_within_the_window(update: vq.EMA | vq.Gradient) -> None:
    module = quantizer(update=update)
    trained_on(module, codes=8, steps=10)  # the other 24 have waited for 640 rows
    assert module.health(window=640).active == 8
    assert module.health(window=641).active == K
    trained_on(module, codes=4, steps=1)  # four more wait, for one batch
    assert module.health(window=64).active == (4 if update != vq.EMA(0.9, every=3) else 8)


def test_pending_statistics_count_before_the_codebook_has_moved() -> None:
    module = quantizer()
    trained_on(module, codes=2, steps=1)
    assert module.pending_steps == 1
    assert module.health(window=N).active == 2


def test_the_ceiling_is_what_uniform_use_reaches() -> None:
    drawn = torch.randint(K, (4000, 50), generator=torch.Generator().manual_seed(0))
    hits = torch.stack([row.bincount(minlength=K) > 0 for row in drawn]).sum(dim=1).double()
    ceiling = quantizer().health(window=50).ceiling
    assert abs(hits.mean() - ceiling) < 5 * hits.std() / math.sqrt(len(hits))


def test_perplexity_is_that_of_the_moving_average() -> None:
    module = quantizer()
    trained_on(module, codes=4, steps=200)
    assert module.health().perplexity == pytest.approx(4.0, rel=1e-3)
    assert quantizer().health().perplexity == pytest.approx(K)


def test_dead_are_the_codes_that_revival_takes_next_and_revived_those_it_took() -> None:
    module = quantizer(revive=vq.Revive(threshold=0.3, age=None))
    trained_on(module, codes=8, steps=11)
    assert (module.health().dead, module.health().revived) == (0, 0)
    trained_on(module, codes=8, steps=1)
    module.flush()  # 0.9^12 < 0.3 < 0.9^11
    assert (module.health().dead, module.health().revived) == (0, 24)
    aged = quantizer(revive=vq.Revive(threshold=1e-9, age=2.0, every=1000))
    trained_on(aged, codes=8, steps=1)
    assert aged.health().dead == 24  # 64 rows are two per code
    assert quantizer(revive=None).health().dead == 0


def test_a_frozen_code_is_never_dead() -> None:
    """Revival passes it over."""
    module = quantizer(revive=vq.Revive(), frozen=torch.arange(K) >= 20)
    module.cluster_size[8:] = 0.0
    assert module.health().dead == 20 - 8


def test_a_codebook_without_statistics_has_no_health() -> None:
    with pytest.raises(ValueError, match="update must be EMA"):
        vq.nn.VectorQuantizer(K, D, update=None).health()


def test_a_collapse_is_reported_once_and_again_after_a_recovery() -> None:
    model = nn.Sequential(nn.Identity(), quantizer())
    watch = vq.watch(model, warn_below=0.5, window=128, every=1)
    with pytest.warns(vq.CollapseWarning, match=r"codebook 1: 2 codes in use in the last 128 ro"):
        trained_on(model, codes=2, steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained_on(model, codes=2, steps=3)
        trained_on(model, codes=K, steps=2)
    with pytest.warns(vq.CollapseWarning, match="codebook 1"):
        trained_on(model, codes=2, steps=3)
    watch.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained_on(model, codes=K, steps=2)
        trained_on(model, codes=2, steps=4)


def test_it_looks_every_so_many_training_forwards_only() -> None:
    model = quantizer()
    vq.watch(model, warn_below=1.0, window=64, every=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained_on(model, codes=2, steps=3)
        model.eval()
        trained_on(model, codes=2, steps=9)
    model.train()
    with pytest.warns(vq.CollapseWarning):
        trained_on(model, codes=2, steps=1)


def test_every_codebook_of_a_nested_quantizer_is_watched_by_name() -> None:
    model = nn.ModuleDict(
        {
            "residual": vq.nn.ResidualVQ(quantizer, 2),
            "frozen": vq.nn.VectorQuantizer(K, D, update=None),
        }
    )
    found = vq.watch(model).check()
    assert list(found) == ["residual.quantizers.0", "residual.quantizers.1"]


def test_a_watched_model_is_copied_pickled_and_compiled() -> None:
    model = quantizer()
    vq.watch(model, warn_below=0.5, window=128, every=1)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.warns(vq.CollapseWarning):
            trained_on(twin, codes=2, steps=3)
    torch._dynamo.reset()
    compiled = torch.compile(quantizer(), backend="aot_eager", fullgraph=True)
    vq.watch(compiled, warn_below=0.5, window=128, every=1)
    with pytest.warns(vq.CollapseWarning, match="codebook _orig_mod"):
        trained_on(compiled, codes=2, steps=3)
    inner = quantizer()
    vq.watch(inner, warn_below=0.5, window=128, every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", vq.CollapseWarning)
        trained_on(torch.compile(inner, backend="aot_eager", fullgraph=True), codes=2, steps=3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(2, 2), {}, "model must hold a quantizer that learns, got none"),
        ("model", {}, "model must be a torch.nn.Module, got str"),
        (quantizer(), {"warn_below": 1.5}, "warn_below must be in"),
        (quantizer(), {"every": 0}, "every must be at least 1, got 0"),
        (quantizer(), {"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(
    model: nn.Module, options: dict[str, float], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        vq.watch(model, **options)

"""Dead codes and how they come back."""

from __future__ import annotations

import pytest
import torch
from modules import batches, make_optimizer, quantizer, train
from torch import Tensor

import vqkernels as vq


def _dying(**options: object) -> vq.nn.VectorQuantizer:
    """64 codes of which 4 lie at the data and 60 far away from it."""
    (codes,) = batches(1, 64, seed=90)
    codes[4:] += 1000.0
    options = {"update": vq.EMA(decay=0.5), **options}
    return quantizer(k=64, init=codes, **options)


@pytest.mark.parametrize("update", [vq.EMA(decay=0.5), vq.Gradient()], ids=["EMA", "Gradient"])
def test_60_dead_codes_of_64_recover(update: vq.EMA | vq.Gradient) -> None:
    module = _dying(update=update)
    actives = [int(module(x).usage.active) for x in batches(60, 512)]
    assert actives[0] <= 4
    assert actives[-1] >= 60


def _lately_in_use(n: int = 512, **options: object) -> vq.nn.VectorQuantizer:
    """The same, where a moving average still remembers that n rows used the codes alike."""
    module = _dying(**options)
    module.cluster_size.fill_(n / 64)
    if module.embed_sum is not None:
        module.embed_sum.copy_(module.codebook.detach() * n / 64)
    return module


@pytest.mark.parametrize("n", [64, 384, 1024])
@pytest.mark.parametrize("update", [vq.EMA(), vq.Gradient()], ids=["EMA", "Gradient"])
def test_the_defaults_notice_within_200_steps_whatever_the_batch_size(
    update: vq.EMA | vq.Gradient, n: int
) -> None:
    """Small batches by the count, large ones by age."""
    module = _lately_in_use(n, update=update)
    optimizer = make_optimizer(module)
    for _ in range(4):
        train(module, batches(50, n), optimizer)
    (x,) = batches(1, 4096)
    assert module(x).usage.active >= 60
    assert module.revived >= 60


@pytest.mark.parametrize("update", [vq.EMA(), vq.Gradient()], ids=["EMA", "Gradient"])
def test_a_count_alone_forgets_too_slowly(update: vq.EMA | vq.Gradient) -> None:
    module = _lately_in_use(update=update, revive=vq.Revive(age=None))
    train(module, batches(50, 512) * 4)
    assert module(batches(1, 4096)[0]).usage.active <= 4
    assert module.revived == 0


def test_the_defaults_leave_codes_alone_that_few_images_need() -> None:
    """A code takes 32 rows of one image in 32 and none of the others: rows are not independent."""
    g = torch.Generator().manual_seed(3)
    codes = 10.0 * torch.randn(64, 6, generator=g)
    module = quantizer(k=64, init=codes)
    module.cluster_size.fill_(8.0)
    module.embed_sum.copy_(codes * 8.0)
    for _ in range(200):
        images = torch.stack([torch.randperm(64, generator=g)[:2] for _ in range(8)])
        module(codes[images.repeat_interleave(32)])
    assert module.revived == 0


@pytest.mark.parametrize("every", [1, 2])
def test_age_is_counted_in_rows_per_code(every: int) -> None:
    """With 64 codes and age 2.5 a code may stay without a row for 159 rows, not for 160."""
    update, revive = vq.EMA(every=every), vq.Revive(age=2.5)
    module = _lately_in_use(update=update, revive=revive)
    for x in batches(every, 159 // every):
        module(x)
    module.flush()
    assert (module.codebook[4:] > 900.0).all()
    assert (module.idle[4:] == 159 // every * every).all()
    module(batches(1, 3)[0])
    module.flush()
    assert (module.codebook[4:] < 900.0).all()
    assert not module.idle[4:].any()
    assert module.revived == 60


def test_age_counts_valid_rows_alone() -> None:
    module = _lately_in_use()
    (x,) = batches(1)
    x[3] = torch.nan
    module(x, torch.arange(64) % 2 == 1)
    module.flush()
    assert module.idle[4:].tolist() == [31] * 60


def test_without_revival_they_stay_dead() -> None:
    module = _dying(revive=None)
    for x in batches(20, 512):
        out = module(x)
    assert out.usage.active <= 4


def _revived_rows(module: vq.nn.VectorQuantizer, batch: Tensor) -> Tensor:
    """Which codes are rows of the batch, bit for bit."""
    return (module.codebook[:, None] == batch[None]).all(dim=2).any(dim=1)


@pytest.mark.parametrize("threshold", [0.6, 2.0])
def test_a_dead_code_becomes_a_row_of_the_batch_with_the_documented_state(
    threshold: float,
) -> None:
    """Dead: under the threshold or a quarter of the mean count, whichever is smaller."""
    module = _dying(revive=vq.Revive(threshold=threshold, candidates=512))
    (x,) = batches(1, 512)
    counts = module(x).usage.counts
    module.flush()
    size = 0.5 + 0.5 * counts
    limit = min(threshold, float(size.mean()) / 4)
    dead = size < limit
    assert dead.sum() >= 60
    assert torch.equal(_revived_rows(module, x), dead)
    assert (module.cluster_size[dead] == limit).all()
    assert torch.equal(module.cluster_size[~dead], size[~dead])
    assert torch.equal(module.embed_sum[dead], module.codebook[dead] * limit)
    assert torch.unique(module.codebook[dead], dim=0).shape == (dead.sum(), 6)


def test_masked_rows_never_become_codes() -> None:
    module = _dying()
    mask = torch.arange(512) % 2 == 0
    for x in batches(20, 512):
        module(torch.where(mask[:, None], x, -5000.0), mask)
    assert module.codebook.min() > -100
    assert module(x, mask).usage.active > 4


@pytest.mark.parametrize("candidates", [8, 256])
def test_nonfinite_rows_and_blanks_never_become_codes(candidates: int) -> None:
    module = _dying(revive=vq.Revive(candidates=candidates))
    for x in batches(30, 512):
        x[torch.arange(512) % 4 != 0] = torch.nan
        module(x)
    assert module.codebook.isfinite().all()
    assert module.codebook.any(dim=1).all()


def test_revival_does_not_depend_on_torchs_seed() -> None:
    codebooks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = _dying()
        for x in batches(12, 512):
            module(x)
        codebooks.append(module.codebook)
    assert torch.equal(*codebooks)


def test_its_own_seed_chooses_other_rows() -> None:
    codebooks = []
    for seed in (0, 1):
        module = _dying(revive=vq.Revive(seed=seed))
        for x in batches(12, 512):
            module(x)
        codebooks.append(module.codebook)
    assert not torch.equal(*codebooks)


def test_the_count_average_of_a_gradient_codebook_is_kept() -> None:
    module = quantizer(update=vq.Gradient(), init="normal")
    (x,) = batches(1)
    counts = module(x).usage.counts
    module.flush()
    expected = 0.99 * torch.ones(16) + (1.0 - 0.99) * counts
    assert torch.equal(module.cluster_size, expected)
    assert module.embed_sum is None


def test_a_frozen_codebook_is_never_revived() -> None:
    module = _dying(update=None)
    before = module.codebook.clone()
    for x in batches(10, 512):
        module(x)
    assert module.revive is None
    assert torch.equal(module.codebook, before)


def test_a_code_is_not_revived_before_a_candidate_was_seen() -> None:
    """One usable row among 512: most draws of two candidates miss it."""
    for seed in range(8):
        module = _dying(revive=vq.Revive(candidates=2, seed=seed))
        (x,) = batches(1, 512)
        x[1:] = torch.nan
        module(x)
        module.flush()
        far = (module.codebook[4:] > 900.0).all(dim=1)
        revived = (module.codebook[4:] == x[0]).all(dim=1)
        assert (far | revived).all()

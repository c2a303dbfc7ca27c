"""The k-means initialisation from the first training batch."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import D, K, assert_same_state, batches, quantizer, snapshot
from torch import Tensor

import vqkernels as vq


def _clusters(n: int = 640, seed: int = 80) -> tuple[Tensor, Tensor]:
    """K well separated clusters, n rows in turn."""
    (centres,) = batches(1, K, seed=seed)
    (noise,) = batches(1, n, seed=seed + 1)
    return centres * 20 + 0.0, centres.repeat(n // K, 1) * 20 + noise * 0.01


def test_it_runs_in_the_first_training_forward_and_lowers_the_error() -> None:
    module = quantizer()
    _, x = _clusters()
    module.eval()
    before = module(x).usage.mse
    module.train()
    after = module(x).usage.mse
    assert module.initialised == 1
    assert after < before / 4


def test_codes_are_means_of_their_rows() -> None:
    module = quantizer(revive=None)
    _, x = _clusters()
    indices = module(x).indices
    counts, sums = vq.code_sums(x, indices, K)
    used = counts > 0
    distances = module.codebook[used] - sums[used] / counts[used, None]
    assert distances.abs().max() < 0.01  # the clusters' own spread: Lloyd has converged


def test_cluster_size_and_embed_sum_start_from_the_counts() -> None:
    module = quantizer()
    module.init_codebook(_clusters()[1])
    assert (module.cluster_size >= 1).all()
    assert module.cluster_size.sum() >= 640
    assert torch.equal(module.embed_sum, module.codebook * module.cluster_size[:, None])


def test_the_same_batch_gives_the_same_codebook_whatever_the_seed() -> None:
    _, x = _clusters()
    first, second = quantizer(seed=1), quantizer(seed=2)
    assert not torch.equal(first.codebook, second.codebook)
    first(x)
    second(x)
    assert torch.equal(first.codebook, second.codebook)


def test_torchs_generator_is_neither_read_nor_advanced() -> None:
    module = quantizer()
    before = torch.get_rng_state()
    for x in batches(3):
        module(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_more_rows_than_256_k_are_sampled() -> None:
    module = quantizer(k=2)
    (x,) = batches(1, 2000)
    module(x)
    assert module.cluster_size.sum() <= 512
    assert module.initialised == 1


def test_fewer_rows_than_codes_start_as_copies() -> None:
    module = quantizer(revive=None)
    (x,) = batches(1, 5)
    module.init_codebook(x)
    nearest = torch.cdist(module.codebook, x).amin(dim=1)
    assert (nearest == 0).all()
    assert torch.unique(module.codebook, dim=0).shape == (5, D)
    assert module(x).usage.mse == 0


def test_masked_rows_take_no_part() -> None:
    x, poison = batches(2)
    mask = torch.arange(64) % 2 == 0
    module, clean = quantizer(), quantizer()
    module.init_codebook(torch.where(mask[:, None], x, 1000 + poison), mask)
    clean.init_codebook(torch.where(mask[:, None], x, torch.nan), mask)
    assert torch.equal(module.codebook, clean.codebook)
    assert module.codebook.abs().max() < 10


@pytest.mark.parametrize("how", ["fully masked", "empty", "all NaN"])
def test_a_batch_without_usable_rows_initialises_nothing(how: str) -> None:
    module = quantizer()
    (x,) = batches(1)
    before = snapshot(module)
    if how == "fully masked":
        out = module(x, torch.zeros(64, dtype=torch.bool))
    else:
        out = module(x[:0] if how == "empty" else x * torch.nan)
    assert module.initialised == 0
    assert_same_state(module, before)
    assert out.loss == 0 or how == "all NaN"
    module(x)
    assert module.initialised == 1


def test_until_then_eval_encode_and_decode_use_the_normal_draw() -> None:
    module = quantizer().eval()
    (x,) = batches(1)
    out = module(x)
    assert torch.equal(module.decode(module.encode(x)), out.quantized)
    assert module.initialised == 0


def test_it_happens_once() -> None:
    module = quantizer()
    first, second = batches(2)
    module.init_codebook(first)
    before = snapshot(module)
    module.init_codebook(second)
    assert_same_state(module, before)


def test_cosine_codes_have_unit_length() -> None:
    module = quantizer(metric="cosine")
    module.init_codebook(_clusters()[1])
    norms = module.codebook.double().norm(dim=1)
    assert ((norms - 1).abs() <= torch.finfo(torch.float32).eps).all()


@pytest.mark.parametrize("update", [vq.Gradient(), None], ids=["Gradient", "frozen"])
def test_it_also_fills_codebooks_without_ema(update: vq.Gradient | None) -> None:
    module = quantizer(update=update)
    reference = quantizer()
    (x,) = batches(1)
    module(x)
    reference(x)
    assert torch.equal(module.codebook, reference.codebook)


@pytest.mark.parametrize("init", ["uniform", "normal"])
def test_other_inits_are_done_at_once(init: str) -> None:
    module = quantizer(init=init)
    assert module.initialised == 1
    assert torch.equal(module.embed_sum, module.codebook)
    assert (module.cluster_size == 1).all()
    if init == "uniform":
        assert module.codebook.abs().max() <= 1 / K


def test_a_given_codebook_is_copied() -> None:
    given = batches(1, K)[0].double()
    module = quantizer(init=given)
    assert torch.equal(module.codebook, given.float())
    given.zero_()
    assert module.codebook.any()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_made_before_the_init_has_one_of_its_own(duplicate) -> None:
    module = quantizer()
    twin, (other_batch,) = duplicate(module), batches(1, 640, seed=99)
    module(_clusters()[1])
    assert (int(module.initialised), int(twin.initialised)) == (1, 0)
    twin(other_batch)
    moved = twin.codebook.clone()
    twin(other_batch)
    assert twin.initialised == 1
    assert not torch.equal(moved, module.codebook)
    assert twin(other_batch).usage.mse <= module.eval()(other_batch).usage.mse

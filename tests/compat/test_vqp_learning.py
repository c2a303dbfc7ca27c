"""What theirs draws with torch's generator: k-means, dead codes, sampled codes. Same meaning."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compat import agreement
from compat.vqp_pairs import pair
from torch import Tensor

from vqkernels.compat.vector_quantize_pytorch import ResidualVQ, VectorQuantize

D, K = 8, 16


def clusters(n: int, spread: float = 0.01) -> tuple[Tensor, Tensor]:
    """(centres, rows): K well separated ones, and n rows around them, each with its share."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(K, D, generator=generator) * 5
    rows = centres[torch.arange(n) % K] + spread * torch.randn(n, D, generator=generator)
    return centres, rows[torch.randperm(n, generator=generator)]


@pytest.mark.parametrize("training", [True, False])
def test_kmeans_runs_on_the_first_batch(training: bool) -> None:
    """In evaluation, too, as theirs: before it all codes are zero."""
    module = VectorQuantize(dim=D, codebook_size=K, kmeans_init=True).train(training)
    assert not module._codebook.initted
    assert not module.codebook.any()
    x = torch.randn(1, 2000, D)
    error = (module(x)[0] - x).square().mean()
    spread = VectorQuantize(dim=D, codebook_size=K).eval()
    assert error < 0.8 * (spread(x)[0] - x).square().mean()
    assert module._codebook.initted
    before = module.codebook.clone()
    module.eval()(torch.randn(1, 50, D) + 9.0)
    assert torch.equal(module.codebook, before)


def test_kmeans_starts_the_averages_at_its_clusters() -> None:
    """The first average must not pull the codes to the origin (issue 66 of the library)."""
    module = VectorQuantize(dim=D, codebook_size=K, kmeans_init=True)
    _, rows = clusters(1600)
    module.eval()(rows[None])
    start = module.codebook.clone()
    agreement.assert_in_one_band(
        module._codebook.embed_avg,
        module._codebook.embed * module._codebook.cluster_size[..., None],
    )
    module.train()(rows[None])
    assert (module.codebook - start).abs().max() < 0.05 * start.abs().max()


def test_kmeans_iterations_are_as_many_as_told() -> None:
    x = torch.randn(1, 2000, D)
    errors = []
    for iterations in (1, 20):
        module = VectorQuantize(
            dim=D, codebook_size=K, kmeans_init=True, kmeans_iters=iterations
        ).eval()
        errors.append(float((module(x)[0] - x).square().mean()))
    assert errors[1] < 0.98 * errors[0]


def test_every_head_and_level_is_initialised_by_what_it_sees() -> None:
    options: dict[str, Any] = {"dim": D, "codebook_size": K, "kmeans_init": True}
    x = torch.randn(1, 500, D)
    heads = VectorQuantize(heads=2, codebook_dim=4, separate_codebook_per_head=True, **options)
    heads(x)
    first, second = heads.codebook
    assert first.any(dim=1).all()
    assert second.any(dim=1).all()
    assert not torch.equal(first, second)
    levels = ResidualVQ(num_quantizers=3, **options)
    levels(x)
    sizes = [book.norm(dim=1).mean() for book in levels.codebooks]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_a_loaded_codebook_is_not_initialised_again() -> None:
    trained = VectorQuantize(dim=D, codebook_size=K)
    fresh = VectorQuantize(dim=D, codebook_size=K, kmeans_init=True)
    fresh.load_state_dict(trained.state_dict())
    fresh.eval()(torch.randn(1, 100, D))
    assert torch.equal(fresh.codebook, trained.codebook)


@pytest.mark.parametrize(
    "options",
    [{}, {"learnable_codebook": True, "ema_update": False}, {"manual_ema_update": True}],
    ids=["average", "gradient", "manual"],
)
def test_dead_codes_become_rows_of_the_batch(options: dict[str, Any]) -> None:
    """In all modes that theirs has."""
    module = VectorQuantize(dim=D, codebook_size=K, threshold_ema_dead_code=2, **options)
    _, rows = clusters(1600)
    with torch.no_grad():
        module._codebook.embed[0, 1:] = 1e3
        module._codebook.embed_avg[0, 1:] = 1e3
    for _ in range(4):
        module(rows[None])
    used = module.eval()(rows[None])[1].unique()
    assert len(used) > K // 2
    away = torch.cdist(module._codebook.embed[0].detach(), rows).min(dim=1).values
    assert (away[1:] < 10.0).all()


def test_a_revived_code_starts_at_the_limit() -> None:
    module = VectorQuantize(dim=D, codebook_size=K, threshold_ema_dead_code=2, ema_update=False)
    ours = module._codebook
    ours.cluster_size.fill_(100.0)
    ours.cluster_size[0, 3] = 0.0
    x = torch.randn(1, 200, D)
    before = module.codebook.clone()
    module.expire_codes_(x)
    moved = (module.codebook != before).any(dim=1)
    assert moved.nonzero().tolist() == [[3]]
    assert (x[0] == module.codebook[3]).all(dim=1).any()
    assert ours.cluster_size[0, 3] == 2.0
    assert torch.equal(ours.embed_avg[0, 3], 2.0 * module.codebook[3])
    module.eval()
    ours.cluster_size[0, 3] = 0.0
    before = module.codebook.clone()
    module.expire_codes_(x)
    assert torch.equal(module.codebook, before)


@pytest.mark.parametrize("options", [{}, {"manual_ema_update": True}], ids=["average", "manual"])
def test_no_code_is_replaced_by_a_masked_row(options: dict[str, Any]) -> None:
    module = VectorQuantize(dim=D, codebook_size=K, threshold_ema_dead_code=2, **options)
    module._codebook.cluster_size.fill_(100.0)
    module._codebook.cluster_size[0, 3] = 0.0
    before = module.codebook.clone()
    module(torch.randn(1, 200, D), mask=torch.zeros(1, 200, dtype=torch.bool))
    assert torch.equal(module.codebook, before)


def test_no_code_is_replaced_without_a_limit() -> None:
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K)
    ours.codebook = theirs.codebook = torch.full((K, D), 1e3).cumsum(0)
    for module in (ours, theirs):
        module.expire_codes_(torch.randn(1, 100, D))
    assert torch.equal(ours.codebook, theirs.codebook)


def test_dead_codes_of_shared_levels_are_replaced_after_the_last() -> None:
    module = ResidualVQ(
        dim=D, num_quantizers=3, codebook_size=K, shared_codebook=True, threshold_ema_dead_code=2
    )
    book = module.layers[0]._codebook
    book.embed[0, 4:] = 1e3
    book.embed_avg[0, 4:] = 1e3
    x = torch.randn(1, 600, D)
    for _ in range(5):
        module(x)
    assert book.embed.abs().max() < 100.0
    assert len(module.eval()(x)[1].unique()) > K // 2


SAMPLED = {"use_cosine_sim": True, "stochastic_sample_codes": True}


def test_codes_are_drawn_as_often_as_theirs() -> None:
    """Frequencies of 20000 draws for one vector, each within 5 standard deviations."""
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=4, **SAMPLED, freeze_codebook=True)
    n, temperature = 20000, 0.5
    x = torch.randn(1, 1, D).expand(1, n, D)
    unit = torch.nn.functional.normalize(x[0, 0], dim=0)
    expected = (ours.codebook @ unit / temperature).softmax(dim=0)
    for module in (ours, theirs):
        indices = module(x, sample_codebook_temp=temperature)[1]
        share = torch.bincount(indices.flatten(), minlength=4) / n
        deviation = (expected * (1 - expected) / n).sqrt()
        assert ((share - expected).abs() < 5 * deviation).all()


def test_codes_are_drawn_anew_in_training_and_never_in_evaluation() -> None:
    module = VectorQuantize(dim=D, codebook_size=K, **SAMPLED, freeze_codebook=True)
    plain = VectorQuantize(dim=D, codebook_size=K, use_cosine_sim=True)
    plain.load_state_dict(module.state_dict())
    x = torch.randn(1, 300, D)
    assert not torch.equal(module(x)[1], module(x)[1])
    assert torch.equal(module(x, sample_codebook_temp=0.0)[1], plain.eval()(x)[1])
    assert torch.equal(module.eval()(x)[1], plain.eval()(x)[1])


def test_drawn_codes_are_those_that_learn() -> None:
    module = VectorQuantize(dim=D, codebook_size=K, **SAMPLED)
    before = copy.deepcopy(module._codebook)
    quantized, indices, _ = module(torch.randn(1, 300, D))
    counts = torch.bincount(indices.flatten(), minlength=K)
    agreement.assert_in_one_band(
        module._codebook.cluster_size[0], 0.8 * before.cluster_size[0] + 0.2 * counts
    )
    agreement.assert_in_one_band(quantized, before.embed[0][indices])


def test_orthogonality_of_some_codes_is_of_as_many_as_told() -> None:
    """Of 3 of 4 codes, two of them equal: the loss has one of two values."""
    module = VectorQuantize(
        dim=D,
        codebook_size=4,
        orthogonal_reg_weight=1.0,
        orthogonal_reg_max_codes=3,
        freeze_codebook=True,
        commitment_weight=0.0,
    )
    codes = torch.eye(D)[:4]
    codes[1] = codes[0]
    module.codebook = codes
    losses = {round(float(module(torch.randn(1, 9, D))[2].detach()), 5) for _ in range(40)}
    assert losses == {0.0, round(2 / 9, 5)}
    module.orthogonal_reg_active_codes_only = True
    one = module(codes[2].expand(1, 5, D))[2]
    assert one == 0.0

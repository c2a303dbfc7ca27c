"""Processes without a wrapper: start, statistics, k-means, revival."""

from __future__ import annotations

import torch
from modules import assert_same_state, quantizer, snapshot
from ranks import (
    ALONE,
    RANK,
    SIZE,
    D,
    K,
    assert_close,
    assert_ranks_equal,
    gathered,
    on_its_own,
    parts,
    reductions,
)

import vqkernels as vq

UPDATES = (vq.EMA(decay=0.8), vq.EMA(decay=0.8, every=2), vq.Gradient(), None)


def ranks_start_alike_whatever_their_seeds() -> None:
    for update in UPDATES:
        module = quantizer(seed=RANK, init="normal", update=update)
        first = quantizer(seed=0, init="normal", update=update)
        module(parts([8])[RANK])
        assert_ranks_equal(module)
        assert torch.equal(module.codebook, first.codebook)


def every_kind_of_state_survives_the_start() -> None:
    """Infinities, large integers and pending statistics too: the bits are those of rank 0."""
    module = quantizer(seed=RANK, init="normal")
    module.clock += 2**40 + 12345 + RANK
    module.pending_counts += RANK + 0.1
    expected = quantizer(seed=0, init="normal")
    expected.clock += 2**40 + 12345
    expected.pending_counts += 0.1
    module.init_codebook(parts([8])[RANK])
    assert_same_state(module, snapshot(expected))


def the_state_is_that_of_one_process_on_the_union() -> None:
    """Whatever part of the batch a rank has: much, little, nothing."""
    for options in (
        *({"update": update} for update in UPDATES),
        {"metric": "cosine"},
    ):
        module = quantizer(init="normal", revive=None, **options)
        single = on_its_own(module)
        for step in range(5):
            rows = parts([(5, 0, 40)[(rank + step) % 3] for rank in range(SIZE)], seed=step)
            module(rows[RANK])
            single(torch.cat(rows))
            assert_ranks_equal(module)
            assert_close(module, single)


def a_fully_masked_rank_changes_nothing() -> None:
    module = quantizer(init="normal", revive=None)
    single = on_its_own(module)
    for step in range(3):
        rows = parts([20], seed=step)
        masked = torch.full((20,), RANK != 1)
        out = module(rows[RANK], masked)
        assert out.loss == 0 or RANK != 1
        single(torch.cat([part for rank, part in enumerate(rows) if rank != 1]))
        assert_ranks_equal(module)
        assert_close(module, single)


def a_step_without_a_row_anywhere_is_none() -> None:
    module = quantizer(init="normal")
    module(parts([8])[RANK])
    before = snapshot(module)
    module(parts([0])[RANK])
    module(parts([8])[RANK], torch.zeros(8, dtype=torch.bool))
    module.flush()
    assert module.clock == before["clock"] + 1  # by the first step's statistics
    assert module.pending_steps == 0
    assert_ranks_equal(module)


def levels_of_a_residual_quantizer_agree_too() -> None:
    for shared in (False, True):
        torch.manual_seed(0)
        module = vq.nn.ResidualVQ(
            lambda: vq.nn.VectorQuantizer(K, D, init="normal", revive=None), 3, shared=shared
        )
        single = on_its_own(module)
        for step in range(4):
            rows = parts([30, 0, 7], seed=step)
            module(rows[RANK])
            single(torch.cat(rows))
            assert_ranks_equal(module)
            assert_close(module, single)


def a_step_is_one_collective() -> None:
    rows = parts([16])[RANK]
    single = quantizer(seed=RANK, init="normal")
    levels = vq.nn.ResidualVQ(lambda: quantizer(seed=RANK, init="normal"), 4)
    for module in (single, levels):
        assert reductions(lambda module=module: module(rows)) == 2  # the start, the statistics
        assert reductions(lambda module=module: module(rows)) == 1
        module.eval()
        assert reductions(lambda module=module: module(rows)) == 0
    nested = vq.nn.GroupedVQ(
        lambda: vq.nn.ResidualVQ(lambda: quantizer(seed=RANK, d=D // 2), 2), 2
    )
    nested(rows)
    assert reductions(lambda: nested(rows)) == 1
    assert_ranks_equal(nested)
    frozen = quantizer(init="normal", update=None)
    frozen(rows)
    assert reductions(lambda: frozen(rows)) == 0
    alone = quantizer(process_group=ALONE)
    assert reductions(lambda: alone(rows)) == 0


def kmeans_sees_the_rows_of_all_ranks() -> None:
    """Rank 1 has none, and every rank has clusters of its own: each gets its code."""
    centres = parts([K], seed=5)[0] * 50
    own = centres[RANK::SIZE] if RANK != 1 else centres[:0]
    x = own.repeat(20, 1) + 0.01 * torch.randn(20 * len(own), D)
    module = quantizer(seed=RANK, revive=None)
    module(x)
    assert module.initialised == 1
    assert_ranks_equal(module)
    seen = torch.cat([centres[rank::SIZE] for rank in range(SIZE) if rank != 1])
    distances = torch.cdist(seen, module.codebook).amin(dim=1)
    assert distances.median() < 0.05  # Lloyd from random rows leaves some clusters merged
    total = 20 * len(seen)
    assert total <= module.cluster_size.sum() <= total + K  # an empty code counts as one row


def kmeans_takes_its_seeds_evenly() -> None:
    """The ranks' rows are far apart, so that codes stay where their seeds were."""
    x = parts([40])[RANK] + 1000.0 * RANK
    module = quantizer(revive=None)
    module.init_codebook(x)
    per_rank = (module.codebook.mean(dim=1) / 1000).round().long().bincount(minlength=SIZE)
    assert (per_rank == K // SIZE).all()


def kmeans_starts_from_every_row_when_there_are_few() -> None:
    rows = parts([3, 0, 2])
    everything = torch.cat(rows)
    module = quantizer(revive=None)
    module.init_codebook(rows[RANK])
    assert_ranks_equal(module)
    assert torch.equal(torch.unique(module.codebook, dim=0), torch.unique(everything, dim=0))


def kmeans_is_limited_over_all_ranks_together() -> None:
    module = quantizer(k=2, revive=None)
    module(parts([600])[RANK])
    assert 256 < module.cluster_size.sum() <= 512


def kmeans_waits_for_the_first_row_on_any_rank() -> None:
    module = quantizer(seed=RANK)
    module(parts([0, 6])[RANK], torch.zeros((0, 6)[RANK % 2], dtype=torch.bool))
    assert module.initialised == 0
    module(parts([0, 6])[RANK])
    assert module.initialised == 1
    assert_ranks_equal(module)


def revival_draws_the_same_vectors_everywhere() -> None:
    """60 of 64 codes are dead and most ranks have no row."""
    far = torch.full((64, D), 1000.0)
    module = quantizer(k=64, init=far, update=vq.EMA(decay=0.8), revive=vq.Revive(candidates=32))
    everything = []
    for step in range(30):
        rows = parts([0, 128] if step % 2 else [64, 3], seed=step)
        everything += rows
        module(rows[RANK])
        assert_ranks_equal(module)
    assert (module.pending_rows[:, None] == torch.cat(everything)).all(dim=2).any(dim=1).all()
    out = module.eval()(torch.cat(parts([256], seed=99)))
    assert out.usage.active >= 48


def candidates_come_from_all_ranks() -> None:
    module = quantizer(init="normal", revive=vq.Revive(candidates=8))
    rows = parts([16, 1])
    module(rows[RANK])
    owners = [
        next(rank for rank, part in enumerate(rows) if (part == row).all(dim=1).any())
        for row in module.pending_rows
    ]
    assert set(owners) == set(range(SIZE))


def draws_differ_between_ranks() -> None:
    """Codes that are sampled and levels that are dropped, for the same x on every rank."""
    x = parts([64])[0]
    sampling = quantizer(init="normal", assign=vq.Sample(temperature=10.0))
    dropping = vq.nn.ResidualVQ(lambda: quantizer(init="normal"), 4, dropout=vq.LevelDropout())
    for module in (sampling, dropping):
        drawn = gathered(module(x).indices)
        assert all(not torch.equal(drawn[0], other) for other in drawn[1:])
        assert_ranks_equal(module)


CHECKS = (
    ranks_start_alike_whatever_their_seeds,
    every_kind_of_state_survives_the_start,
    the_state_is_that_of_one_process_on_the_union,
    a_fully_masked_rank_changes_nothing,
    a_step_without_a_row_anywhere_is_none,
    levels_of_a_residual_quantizer_agree_too,
    a_step_is_one_collective,
    kmeans_sees_the_rows_of_all_ranks,
    kmeans_takes_its_seeds_evenly,
    kmeans_starts_from_every_row_when_there_are_few,
    kmeans_is_limited_over_all_ranks_together,
    kmeans_waits_for_the_first_row_on_any_rank,
    revival_draws_the_same_vectors_everywhere,
    candidates_come_from_all_ranks,
    draws_differ_between_ranks,
)

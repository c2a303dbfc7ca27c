"""A split codebook does what a whole one does: search, step, learning."""

from __future__ import annotations

import copy

import pytest
import torch
from ranks import ALONE, RANK, SIZE, D, gathered, parts
from shards import (
    K,
    assert_same_learning,
    assert_same_step,
    codes,
    own,
    split_and_whole,
    step,
    whole_state,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

import vqkernels as vq
from vqkernels import ops

UNEVEN = [(9, 0, 30, 1)[(rank + 1) % 4] for rank in range(SIZE)]  # rank 3, or 1 of 2, has most


def rows_of_one_x() -> torch.Tensor:
    return torch.cat(parts([24 // SIZE], seed=3))


def a_step_is_that_of_the_whole_codebook() -> None:
    image = rows_of_one_x().reshape(2, 3, 4, D).movedim(-1, 1)
    mask = torch.arange(24).reshape(2, 3, 4) % 5 != 0
    for options in (
        {},
        {"estimator": "rotation"},
        {"metric": "cosine", "estimator": "rotation"},
        {"metric": "cosine", "commitment_weight": 2.0},
        {"update": None},
        {"backend": "reference"},
    ):
        for dtype in (torch.float32, torch.bfloat16):
            for positions in (None, mask):
                sharded, whole = split_and_whole(**options)
                x = image.to(dtype)
                assert_same_step(step(sharded, x, positions), step(whole, x, positions))
                assert torch.equal(sharded.encode(x), whole.encode(x))
                assert_same_step(step(sharded.eval(), x), step(whole.eval(), x))
    sharded, whole = split_and_whole(backend="reference")
    x = image.double()
    assert_same_step(step(sharded, x), step(whole, x))


def codes_are_split_evenly_and_in_order() -> None:
    sharded, _ = split_and_whole()
    sizes = {2: [7, 6], 4: [4, 3, 3, 3]}[SIZE]
    first = sum(sizes[:RANK])
    assert torch.equal(sharded.codebook, codes()[first : first + sizes[RANK]])


def equal_codes_on_several_ranks_lose_to_the_first() -> None:
    doubled = codes(k=3).repeat(5, 1)[:K]
    for metric in ("l2", "cosine"):
        sharded, whole = split_and_whole(init=doubled, metric=metric)
        x = torch.cat([doubled, rows_of_one_x(), torch.zeros(1, D)])
        indices = sharded.encode(x)
        assert indices.max() < 3
        assert torch.equal(indices, whole.encode(x))


def codes_on_several_ranks_are_told_apart_beyond_float32() -> None:
    """The last code is nearer than the first by 2^-26 of their distance."""
    init = 10 + codes()
    init[0], init[-1] = 0.0, 0.0
    init[0, 0], init[0, 1], init[-1, 0] = 1.0, 2.0**-13, 1.0
    sharded, whole = split_and_whole(init=init)
    x = torch.zeros(1, D)
    assert whole.encode(x) == K - 1
    assert sharded.encode(x) == K - 1


def non_finite_rows_and_codes_are_those_of_the_whole_codebook() -> None:
    x = rows_of_one_x()
    x[3, 1], x[5, 0], x[7, 2] = torch.nan, torch.inf, -torch.inf
    for metric in ("l2", "cosine"):
        for bad in (slice(0, 0), slice(0, 7), slice(9, 10), slice(0, K)):
            sharded, whole = split_and_whole(metric=metric)
            everything = codes()
            everything[bad] = torch.inf
            whole.codebook.copy_(everything)
            first, stop, _ = sharded._shard.part.tolist()
            sharded.codebook.copy_(everything[first:stop])
            assert_same_step(step(sharded, x), step(whole, x))


def a_non_finite_code_never_wins_as_the_only_one_of_its_rank() -> None:
    x = rows_of_one_x()
    everything = torch.full((SIZE, D), torch.inf)
    everything[-1] = -1.0
    for metric in ("l2", "cosine"):
        indices, _ = ops.nearest_shard(x, everything[RANK:][:1], None, RANK, metric, 1, None, "0")
        assert (indices == SIZE - 1).all()


def training_is_that_of_the_whole_codebook() -> None:
    for options in (
        {"update": vq.EMA(decay=0.8)},
        {"update": vq.EMA(decay=0.8, every=2)},
        {"update": vq.EMA(decay=0.5, epsilon=0.5), "metric": "cosine"},
        {"update": None},
    ):
        sharded, whole = split_and_whole(**options)
        for number in range(5):
            # Two rows: some ranks' codes get none. Masked: nobody's do.
            x = torch.cat(parts([12, 20], seed=number))[: 2 if number == 2 else None]
            mask = torch.arange(len(x)) % 3 > (0 if number != 3 else 5)
            assert_same_step(step(sharded, x, mask), step(whole, x, mask))
            assert_same_learning(sharded, whole)
            sharded.flush()
            whole.flush()
            assert_same_learning(sharded, whole)


def gathered_rows_train_as_their_union() -> None:
    """A rank's results are those of its own rows, whoever else has how many."""
    for metric in ("l2", "cosine"):
        sharded, whole = split_and_whole(gather=True, update=vq.EMA(decay=0.8), metric=metric)
        for number in range(4):
            rows = parts(UNEVEN if number != 2 else [0], seed=number)
            masks = [torch.arange(len(part)) % 3 > 0 for part in rows]
            union = torch.cat(rows), torch.cat(masks)
            alone = copy.deepcopy(whole).eval()
            assert_same_step(
                step(sharded, own(rows), own(masks)), step(alone, own(rows), own(masks))
            )
            assert torch.equal(sharded.encode(own(rows)), whole.encode(own(rows)))
            whole(*union)
            sharded.flush()
            whole.flush()
            assert_same_learning(sharded, whole)


def gathered_images_keep_their_layout() -> None:
    sharded, whole = split_and_whole(gather=True)
    x = parts([24], seed=RANK)[0].reshape(2, 3, 4, D).movedim(-1, 1).half()
    assert_same_step(step(sharded, x), step(whole, x))


def kmeans_is_that_of_the_whole_codebook() -> None:
    for metric in ("l2", "cosine"):
        for gather in (False, True):
            # Fewer rows than codes, and more.
            for sizes in ([1, 2, 0, 1], [40, 0, 7, 30]):
                sharded, whole = split_and_whole(init="kmeans", metric=metric, gather=gather)
                rows = parts(sizes[:SIZE], seed=8)
                union = torch.cat(rows)
                nothing = torch.zeros(len(union), dtype=torch.bool)
                sharded.init_codebook(
                    own(rows)[:0] if gather else union, None if gather else nothing
                )
                assert whole_state(sharded)["cluster_size"].eq(1).all()
                assert sharded._shard.initialised == 0
                sharded.init_codebook(own(rows) if gather else union)
                whole.init_codebook(union)
                assert sharded._shard.initialised == 1
                state = whole_state(sharded)
                for name in ("codebook", "cluster_size", "embed_sum"):
                    assert torch.equal(state[name], whole.state_dict()[name]), name


def draws_with_one_seed_differ_between_ranks() -> None:
    for init in ("normal", "uniform", "kmeans"):
        torch.manual_seed(0)
        sharded = vq.nn.ShardedCodebook(K, D, init=init)
        everything = whole_state(sharded)["codebook"]
        assert len(torch.unique(everything, dim=0)) == K
        assert init != "uniform" or everything.abs().max() <= 1 / K


def ranks_revive_their_codes_by_different_rows() -> None:
    """All codes but the one that is nearest to the rows die in one step."""
    far = torch.full((K, D), 1000.0) + codes()
    sharded, _ = split_and_whole(init=far, revive=vq.Revive(age=1.0, candidates=16), gather=True)
    rows = parts([32, 5])
    sharded(own(rows))
    sharded.flush()
    state = whole_state(sharded)
    revived = state["codebook"][state["codebook"].abs().amax(dim=1) < 100]
    assert len(torch.unique(revived, dim=0)) == K - 1
    assert (revived[:, None] == torch.cat(rows)).all(dim=2).any(dim=1).all()
    assert sum(gathered(sharded.revived)) == K - 1


def idle_codes_are_revived_by_age() -> None:
    """The rows that age counts are those of the whole codebook, also where no code took one."""
    init = codes()
    init[-1] = 1000.0
    sharded, _ = split_and_whole(
        init=init, update=vq.EMA(decay=0.999), revive=vq.Revive(age=10.0, candidates=8)
    )
    for number in range(9):
        sharded(torch.cat(parts([32 // SIZE], seed=number)))
        sharded.flush()
        assert (sharded.codebook[-1].max() > 900) == (
            RANK == SIZE - 1 and number < 4
        )  # 10 * 13 rows
    assert whole_state(sharded)["codebook"].max() < 900


def a_checkpointed_region_searches_again() -> None:
    for gather in (False, True):
        results = []
        for how in ("plain", "checkpoint", "reentrant"):
            torch.manual_seed(0)
            encoder = nn.Linear(D, D)
            module, _ = split_and_whole(gather=gather, revive=vq.Revive())
            gradients = []
            for number in range(3):
                rows = parts(UNEVEN, seed=number)
                z = encoder(own(rows) if gather else torch.cat(rows))

                def region(z: torch.Tensor) -> torch.Tensor:
                    out = module(z.tanh())  # noqa: B023 (called within the iteration)
                    return out.quantized.sin().sum() + out.loss

                if how == "plain":
                    loss = region(z)
                else:
                    loss = checkpoint(region, z, use_reentrant=how == "reentrant")
                loss.backward()
                gradients.append(encoder.weight.grad.clone())
            results.append([*gradients, *module.state_dict().values()])
        for found in results[1:]:
            assert_same_step(found, results[0])


def what_the_ranks_must_agree_in_is_checked() -> None:
    sharded, _ = split_and_whole()
    x = rows_of_one_x()
    with pytest.raises(RuntimeError, match="x must be the same on every rank of group"):
        sharded(x + RANK)
    with pytest.raises(RuntimeError, match="x must be the same on every rank of group"):
        sharded(x.flip(0) if RANK == 0 else x)
    with pytest.raises(ValueError, match=f"num_embeddings must be at least {SIZE}, the ranks of"):
        vq.nn.ShardedCodebook(SIZE - 1, D)
    sharded.process_group = ALONE
    with pytest.raises(
        RuntimeError, match=f"group must have this process as rank {RANK} of {SIZE}"
    ):
        sharded(x)


CHECKS = (
    a_step_is_that_of_the_whole_codebook,
    codes_are_split_evenly_and_in_order,
    equal_codes_on_several_ranks_lose_to_the_first,
    codes_on_several_ranks_are_told_apart_beyond_float32,
    non_finite_rows_and_codes_are_those_of_the_whole_codebook,
    a_non_finite_code_never_wins_as_the_only_one_of_its_rank,
    training_is_that_of_the_whole_codebook,
    gathered_rows_train_as_their_union,
    gathered_images_keep_their_layout,
    kmeans_is_that_of_the_whole_codebook,
    draws_with_one_seed_differ_between_ranks,
    ranks_revive_their_codes_by_different_rows,
    idle_codes_are_revived_by_age,
    a_checkpointed_region_searches_again,
    what_the_ranks_must_agree_in_is_checked,
)

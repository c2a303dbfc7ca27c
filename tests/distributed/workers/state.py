"""Files, copies, groups and evaluation, in processes without a wrapper."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.distributed as dist
from modules import assert_same_state, make_optimizer, quantizer, snapshot, train
from ranks import (
    ALONE,
    RANK,
    SIZE,
    assert_ranks_equal,
    gathered,
    on_its_own,
    parts,
)

import vqkernels as vq

PAIRS = [dist.new_group(list(range(first, first + 2))) for first in range(0, SIZE, 2)]
PAIR = PAIRS[RANK // 2]


def a_file_that_only_one_rank_has_loaded_reaches_all() -> None:
    """k-means is done on that rank, open on the others, and must run on none or on all."""
    for update in (vq.EMA(), vq.Gradient()):
        module = quantizer(seed=RANK, update=update)
        trained = quantizer(update=update, process_group=ALONE)
        trained(parts([40])[0])
        trained(parts([40])[1])
        if RANK == 0:
            module.load_state_dict(trained.state_dict())
        module.init_codebook(parts([9])[RANK])
        assert_same_state(module, snapshot(trained))
        module(parts([9, 4])[RANK])
        assert_ranks_equal(module)


def draws_go_on_from_a_file_that_only_one_rank_has_loaded() -> None:
    def made(seed: int) -> vq.nn.ResidualVQ:
        return vq.nn.ResidualVQ(lambda: quantizer(seed), 4, dropout=vq.LevelDropout())

    batches = [parts([12, 5, 8], seed=step)[RANK] for step in range(5)]
    whole, resumed = made(0), made(RANK)
    for batch in batches[:2]:
        whole(batch)
    if RANK == 0:
        resumed.load_state_dict(whole.state_dict())
    for batch in batches[2:]:
        assert torch.equal(resumed(batch).indices, whole(batch).indices)
    assert_same_state(resumed, snapshot(whole))


def a_file_from_before_the_init_on_one_rank_opens_it_for_all() -> None:
    module = quantizer(seed=RANK, init="normal")
    if RANK == 0:
        module.load_state_dict(quantizer().state_dict())
    module(parts([9, 0])[RANK])
    assert module.initialised == 1
    assert (module.cluster_size > 1).any()  # k-means has run
    assert_ranks_equal(module)


def resumed_training_is_the_same_training() -> None:
    """k + m steps, and k steps, save on rank 0, load everywhere, m steps: bit for bit."""
    for update in (vq.EMA(decay=0.8, every=2), vq.Gradient(), None):
        straight, first = quantizer(seed=RANK, update=update), quantizer(seed=RANK, update=update)
        batches = [parts([12, 5, 0], seed=step)[RANK] for step in range(7)]
        train(straight, batches)
        train(first, batches[:3])
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        received: list[object] = [file.getvalue()]
        dist.broadcast_object_list(received)
        second = quantizer(seed=RANK + 10, update=update)
        second.load_state_dict(torch.load(io.BytesIO(received[0])))
        train(second, batches[3:])
        assert_same_state(second, snapshot(straight))
        assert_ranks_equal(second)


def pairs_of_ranks_learn_their_own_codebooks() -> None:
    module = quantizer(process_group=PAIR)
    single = on_its_own(quantizer())
    for step in range(3):
        module(parts([20, 3], seed=step)[RANK])
    everyone = gathered(module.codebook)
    for rank, codebook in enumerate(everyone):
        assert torch.equal(codebook, module.codebook) == (rank // 2 == RANK // 2)
    assert module.process_group is PAIR
    assert single.process_group is ALONE


def copies_keep_their_group() -> None:
    module = quantizer(seed=RANK, process_group=PAIR)
    module(parts([20])[RANK])
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.process_group is PAIR
        twin(parts([20, 4], seed=3)[RANK])
        everyone = gathered(twin.codebook)
        assert torch.equal(everyone[RANK ^ 1], twin.codebook)
        assert not torch.equal(everyone[RANK ^ 2], twin.codebook)


def a_copy_on_one_rank_starts_with_the_others() -> None:
    """As a trained module that only rank 0 has read from a file: it has met these ranks before."""
    trained = quantizer()
    trained(parts([20])[RANK])
    module = pickle.loads(pickle.dumps(trained)) if RANK == 0 else quantizer(seed=RANK)
    module(parts([9, 4])[RANK])
    assert_ranks_equal(module)
    assert module.clock == 1


def a_residual_quantizer_has_one_group() -> None:
    groups = iter([None, PAIR])
    with pytest.raises(ValueError, match="equal process_group"):
        vq.nn.ResidualVQ(lambda: quantizer(process_group=next(groups)), 2)


def a_group_of_others_is_refused() -> None:
    group = dist.new_group([0])
    if RANK == 0:
        assert quantizer(process_group=group).process_group is group
    else:
        with pytest.raises(ValueError, match="process_group must be a group that this rank"):
            quantizer(process_group=group)


def evaluation_on_one_rank_leaves_the_ranks_alike() -> None:
    """Leaving training mode moves what is due: on that rank sooner, but not elsewhere to."""
    far = torch.full((16, 6), 100.0)
    for update in (vq.EMA(decay=0.8), vq.Gradient()):
        module = quantizer(init=far, update=update)
        module.cluster_size.fill_(0.01)
        for step in range(6):
            module(parts([20, 3], seed=step)[RANK])
            if RANK == 0:
                module.eval()
                module(parts([50])[0])
                module.encode(parts([50])[0])
                module.train()
        module(parts([20, 3], seed=9)[RANK])
        assert_ranks_equal(module)
        assert (module.codebook.abs().amax(dim=1) < 50).any()  # codes were revived


def the_first_rank_of_a_codebook_warns_of_its_collapse() -> None:
    """Not that of all ranks, which may not hold the codebook."""
    module = quantizer(init="normal", revive=None, process_group=PAIR)
    watch = vq.watch(module, warn_below=0.5)
    module(parts([20])[RANK])
    module.idle.fill_(10**6)
    module.pending_counts.zero_()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert watch.check()[""].active == 0
    assert [warning.category for warning in caught] == [vq.CollapseWarning] * (RANK % 2 == 0)


def a_codebook_that_an_engine_has_rounded_starts_alike() -> None:
    """Also one whose bytes are no whole number of words."""
    module = quantizer(seed=RANK, k=3, d=5, update=vq.Gradient(), revive=None)
    module.codebook.data = module.codebook.data.bfloat16()
    module(parts([20], d=5)[RANK])
    assert module.codebook.dtype == torch.bfloat16
    assert_ranks_equal(module)


def optimizers_keep_codebooks_alike() -> None:
    """Gradients averaged by hand, codes revived by us."""
    module = quantizer(seed=RANK, update=vq.Gradient())
    optimizer = make_optimizer(module)
    assert optimizer is not None
    for step in range(5):
        module(parts([20, 0], seed=step)[RANK]).loss.backward()
        dist.all_reduce(module.codebook.grad)
        optimizer.step()
        optimizer.zero_grad()
        assert_ranks_equal(module)


CHECKS = (
    a_file_that_only_one_rank_has_loaded_reaches_all,
    draws_go_on_from_a_file_that_only_one_rank_has_loaded,
    a_file_from_before_the_init_on_one_rank_opens_it_for_all,
    resumed_training_is_the_same_training,
    pairs_of_ranks_learn_their_own_codebooks,
    copies_keep_their_group,
    a_copy_on_one_rank_starts_with_the_others,
    a_residual_quantizer_has_one_group,
    a_group_of_others_is_refused,
    evaluation_on_one_rank_leaves_the_ranks_alike,
    the_first_rank_of_a_codebook_warns_of_its_collapse,
    a_codebook_that_an_engine_has_rounded_starts_alike,
    optimizers_keep_codebooks_alike,
)

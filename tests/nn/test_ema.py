"""The codebook under EMA: what it becomes, and at which moment."""

from __future__ import annotations

import pytest
import textbook
import torch
from budget import assert_within_budget
from modules import D, K, assert_same_state, batches, quantizer, snapshot, train
from torch import Tensor, nn

import vqkernels as vq


def _followed(
    xs: list[Tensor], codebook: Tensor, dtype: torch.dtype, metric: str = "l2"
) -> tuple[Tensor, Tensor, Tensor]:
    """The textbook's state after each batch in turn, in ``dtype``."""
    codebook, size, total = codebook.to(dtype), torch.ones(K, dtype=dtype), codebook.to(dtype)
    for x in xs:
        out = textbook.quantize(x.to(dtype), codebook, metric=metric)
        codebook, size, total = textbook.ema(size, total, out.counts, out.sums, 0.8, 1e-5)
        if metric == "cosine":
            codebook = torch.nn.functional.normalize(codebook, dim=1)
    return codebook, size, total


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_training_follows_the_textbook(metric: str, backend: str) -> None:
    xs = batches(5)
    init = torch.nn.functional.normalize(batches(1, K, seed=1)[0], dim=1)
    options = {"update": vq.EMA(decay=0.8), "revive": None, "metric": metric}
    module = quantizer(init=init, backend=backend, **options)
    train(module, xs)
    module.flush()
    exact, eager = (_followed(xs, init, dtype, metric) for dtype in (torch.float64, torch.float32))
    found = module.codebook, module.cluster_size, module.embed_sum
    for got, *values in zip(found, exact, eager, strict=True):
        assert_within_budget(got, *values)


def test_the_codebook_moves_at_the_start_of_the_next_training_forward() -> None:
    module = quantizer(init="normal")
    first, second = batches(2)
    start = module.codebook.clone()
    module(first)
    assert torch.equal(module.codebook, start)
    module(second)
    assert not torch.equal(module.codebook, start)


def test_decode_reproduces_quantized_until_the_next_training_forward() -> None:
    module = quantizer()
    for x in batches(4):
        out = module(x)
        assert torch.equal(module.decode(out.indices), out.quantized)
        assert torch.equal(module.encode(x), out.indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_decode_rounded_to_the_dtype_of_x_is_quantized(dtype: torch.dtype) -> None:
    module = quantizer(metric="cosine")
    out = module(batches(1)[0].to(dtype))
    decoded = module.decode(out.indices)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded.to(dtype), out.quantized)


def test_flush_applies_what_is_pending_once() -> None:
    module = quantizer(init="normal", update=vq.EMA(every=4))
    module(batches(1)[0])
    before = module.codebook.clone()
    module.flush()
    moved = snapshot(module)
    assert not torch.equal(moved["codebook"], before)
    assert module.pending_steps == 0
    module.flush()
    assert_same_state(module, moved)


def test_flush_before_any_batch_changes_nothing() -> None:
    module = quantizer()
    before = snapshot(module)
    module.flush()
    assert_same_state(module, before)


@pytest.mark.parametrize("through_parent", [False, True])
def test_leaving_training_mode_applies_what_is_due(through_parent: bool) -> None:
    module = quantizer(init="normal")
    parent = nn.Sequential(nn.Sequential(module))
    module(batches(1)[0])
    (parent if through_parent else module).eval()
    assert module.pending_steps == 0
    assert module.clock == 1


def test_leaving_training_mode_leaves_what_is_not_due() -> None:
    module = quantizer(init="normal", update=vq.EMA(every=2))
    module(batches(1)[0])
    before = snapshot(module)
    module.eval()
    module.train()
    assert_same_state(module, before)


def test_eval_called_outside_of_training_mode_moves_nothing() -> None:
    """A checkpoint with due statistics, loaded for inference, stays what was saved."""
    trained, module = quantizer(init="normal"), quantizer(init="normal", seed=9)
    trained(batches(1)[0])
    module.eval()
    module.load_state_dict(trained.state_dict())
    module.eval()
    assert_same_state(module, snapshot(trained))


def test_train_called_in_training_mode_moves_nothing() -> None:
    module = quantizer(init="normal")
    module(batches(1)[0])
    before = snapshot(module)
    module.train()
    assert_same_state(module, before)


def test_eval_forwards_change_nothing() -> None:
    module = quantizer()
    train(module, batches(2))
    module.eval()
    before = snapshot(module)
    for x in batches(3, seed=71):
        module(x)
        module.encode(x)
    module.flush()
    assert_same_state(module, before)


def test_training_mode_decides_and_not_grad_mode() -> None:
    with_grad, without = quantizer(), quantizer()
    for x in batches(3):
        with_grad(x)
        with torch.no_grad():
            without(x)
    assert_same_state(without, snapshot(with_grad))


def test_every_n_equals_one_move_with_summed_statistics() -> None:
    """Three accumulation steps of one third of a batch, against one step of the whole batch."""
    init = batches(1, K, seed=1)[0]
    parts = batches(3)
    accumulated = quantizer(init=init, update=vq.EMA(decay=0.8, every=3), revive=None)
    outs = train(accumulated, parts)
    assert accumulated.clock == 0
    accumulated.flush()

    size, total, codebook = torch.ones(K), init.clone(), init.clone()
    sums = [vq.code_sums(x, out.indices, K) for x, out in zip(parts, outs, strict=True)]
    counts = sum(part.counts for part in sums)
    added = torch.zeros(K, D)
    for part in sums:
        added += part.sums
    vq.ema_update_(codebook, size, total, counts, added, decay=0.8, epsilon=1e-5)
    assert torch.equal(accumulated.codebook, codebook)
    assert torch.equal(accumulated.cluster_size, size)
    assert torch.equal(accumulated.embed_sum, total)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_every_n_on_parts_of_a_batch_is_one_step_on_the_whole(metric: str) -> None:
    """Both round a sum of the same rows; every=n also rounds it once per part."""
    n, init = 4, torch.nn.functional.normalize(batches(1, K, seed=1)[0], dim=1)
    options = {"init": init, "metric": metric, "revive": None}
    parts = quantizer(update=vq.EMA(decay=0.8, every=n), **options)
    whole = quantizer(update=vq.EMA(decay=0.8), **options)
    for x in batches(3, 64 * n):
        part_outs, out = train(parts, list(x.chunk(n))), train(whole, [x])[0]
        # The same codes see the same rows, whatever an update before them has rounded.
        assert torch.equal(torch.cat([part.indices for part in part_outs]), out.indices)
    parts.flush()
    whole.flush()
    assert parts.clock == whole.clock == 3
    xs = batches(3, 64 * n)
    exact, eager = (_followed(xs, init, dtype, metric) for dtype in (torch.float64, torch.float32))
    for module in (parts, whole):
        found = module.codebook, module.cluster_size, module.embed_sum
        for got, *values in zip(found, exact, eager, strict=True):
            assert_within_budget(got, *values)


def test_every_n_moves_only_each_nth_forward() -> None:
    module = quantizer(init="normal", update=vq.EMA(every=3))
    clocks = [int(module.clock) for x in batches(7) if module(x)]
    assert clocks == [0, 0, 0, 1, 1, 1, 2]


def test_two_forwards_before_one_backward_keep_their_graphs() -> None:
    """The codebook buffer moves between them: nothing that autograd saved may notice."""
    module = quantizer(estimator="rotation", metric="cosine")
    x, y = (value.requires_grad_() for value in batches(2))
    first, second = module(x), module(y)
    (first.loss + second.loss + first.quantized.sum() + second.quantized.sum()).backward()
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()


def test_the_loss_has_no_codebook_term() -> None:
    module = quantizer(commitment_weight=0.5, init="normal")
    out = module(batches(1)[0])
    assert torch.equal(out.loss, 0.5 * out.usage.mse)

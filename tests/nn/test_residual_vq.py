"""ResidualVQ is its quantizers, one after the other on what is left, and nothing more."""

from __future__ import annotations

import copy
import io
import itertools
import re
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from modules import (
    UPDATES,
    D,
    K,
    assert_checkpointed_as_plain,
    assert_same_state,
    batches,
    make_optimizer,
    quantizer,
    snapshot,
    train,
)
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import vqkernels as vq

LEVELS = 3
Update = vq.EMA | vq.Gradient | None
all_updates = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
both = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])


def _residual(
    seed: int = 0, levels: int = LEVELS, shared: bool = False, **options: Any
) -> vq.nn.ResidualVQ:
    seeds = iter(range(100 * seed, 100 * seed + levels))
    return vq.nn.ResidualVQ(lambda: quantizer(next(seeds), **options), levels, shared=shared)


class _Chain(nn.Module):
    """The definition: single quantizers on successive residuals, without the fused op."""

    def __init__(self, module: vq.nn.ResidualVQ) -> None:
        super().__init__()
        self.quantizers = copy.deepcopy(module.quantizers)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        left, total, loss, indices = x, None, 0.0, []
        for level in self.quantizers:
            out = level(left, mask)
            code = out.quantized.detach()
            if mask is not None:  # a masked position passes through every level
                code = torch.where(mask[:, None], code, 0.0)
            left, total = left - code, code if total is None else total + code
            loss = loss + out.loss
            indices.append(out.indices)
        total = total if mask is None else torch.where(mask[:, None], total, x.detach())
        return total, torch.stack(indices, dim=-1), loss


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@all_updates
def test_training_equals_single_quantizers_on_successive_residuals(
    update: Update, masked: bool
) -> None:
    """Indices, vectors and, where no gradient is rounded, every bit of the state: k-means per
    level, statistics, moves, and revival by residuals of the level.
    """
    module = _residual(update=update)
    chain = _Chain(module)
    mask = torch.arange(64) % 3 != 1 if masked else None
    optimizer, other = make_optimizer(module), make_optimizer(chain)
    eps = torch.finfo(torch.float32).eps
    for x in batches(7):
        out = module(x, mask)
        quantized, indices, loss = chain(x, mask)
        assert torch.equal(out.indices, indices)
        assert torch.equal(out.quantized, quantized)
        assert (out.loss - loss).detach().abs() <= LEVELS * eps * loss.detach()
        if optimizer is None or other is None:
            assert_same_state(module, snapshot(chain))
            continue
        out.loss.backward()
        loss.backward()
        # After k-means the terms of a code cancel: their size counts, not that of their sum.
        term = 2.0 * float(x.abs().max()) / (D * int((indices[:, 0] >= 0).sum()))
        allowed = eps * term * float(out.usage.counts.max())
        for mine, theirs in zip(module.parameters(), chain.parameters(), strict=True):
            assert float((mine.grad - theirs.grad).abs().max()) <= allowed
            mine.grad.copy_(theirs.grad)  # so that rounding does not grow from step to step
        for any_optimizer in (optimizer, other):
            any_optimizer.step()
            any_optimizer.zero_grad()
        assert_same_state(module, snapshot(chain))


def test_dead_codes_of_a_level_become_residuals_of_that_level() -> None:
    far = torch.full((K, D), 50.0)
    module = _residual(init=far, update=vq.EMA(decay=0.5), revive=vq.Revive(threshold=2.0))
    module.quantizers[0].codebook.copy_(torch.randn(K, D))
    x = batches(1)[0]
    out = module(x)
    left = x - module.quantizers[0].decode(out.indices[:, 0])
    module.flush()
    codes = module.quantizers[1].codebook
    revived = (codes[:, None] == left[None]).all(dim=2).any(dim=1)
    assert revived.tolist() == [False] + [True] * (K - 1)  # code 0 had taken every row


def test_statistics_of_a_shared_codebook_are_added_over_the_levels() -> None:
    module = _residual(shared=True, init="normal", revive=vq.Revive(candidates=8))
    x = batches(1)[0]
    out = module(x)
    (only,) = module.quantizers
    left, sums = x, torch.zeros(K, D, dtype=torch.float64)
    met = []
    for level in range(LEVELS):
        met.append(left)
        sums.index_add_(0, out.indices[:, level], left.double())
        left = left - only.decode(out.indices[:, level])
    assert torch.equal(only.pending_counts, out.usage.counts.sum(dim=0).float())
    eps = torch.finfo(torch.float32).eps
    assert float((only.pending_sums - sums).abs().max()) <= 2 * eps * float(sums.abs().max())
    assert only.pending_steps == 1
    for number, row in enumerate(only.pending_rows):  # candidate j comes from level j mod L
        assert (met[number % LEVELS] == row).all(dim=1).any()


@both
@all_updates
def test_decode_reproduces_quantized_until_the_codebooks_move(
    update: Update, shared: bool
) -> None:
    module = _residual(update=update, shared=shared)
    for x in batches(3):
        out = module(x)
        assert torch.equal(module.decode(out.indices), out.quantized)
        assert torch.equal(module.encode(x), out.indices)


@both
def test_fewer_levels_decode_to_a_coarser_description(shared: bool) -> None:
    module = _residual(shared=shared)
    train(module, batches(5))
    (x,) = batches(1, seed=77)
    module.eval()
    indices = module.encode(x)
    assert indices.shape == (64, LEVELS)
    errors = []
    for levels in range(1, LEVELS + 1):
        got = module.decode(indices[:, :levels])
        codes = [module.quantizers[0 if shared else i].codebook for i in range(levels)]
        expected = codes[0][indices[:, 0]]
        for level in range(1, levels):
            expected = expected + codes[level][indices[:, level]]
        assert torch.equal(got, expected)
        errors.append(float((x - got).square().mean()))
    assert errors == sorted(errors, reverse=True)
    cut = torch.cat([indices[:, :1], torch.full_like(indices[:, 1:], -1)], dim=1)
    assert torch.equal(module.decode(cut), module.decode(indices[:, :1]))


@pytest.mark.parametrize("layout", ["NCHW", "channels last", "BTD", "5-D"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_any_layout_and_dtype_goes_through(layout: str, dtype: torch.dtype) -> None:
    x, channel = cases.LAYOUTS[layout](cases.batch()[0].to(dtype))
    module = _residual(channel_dim=channel)
    out = module(x.requires_grad_())
    (out.quantized.float().sum() + out.loss).backward()
    positions = x.movedim(channel, -1).shape[:-1]
    assert out.indices.shape == (*positions, LEVELS)
    assert out.quantized.shape == x.shape
    assert torch.equal(module.decode(out.indices).to(dtype), out.quantized)
    assert x.grad.dtype == dtype


@both
@pytest.mark.parametrize("reentrant", [False, True])
@all_updates
def test_a_checkpointed_region_computes_the_same(
    update: Update, reentrant: bool, shared: bool
) -> None:
    assert_checkpointed_as_plain(
        lambda: _residual(update=update, shared=shared, estimator="rotation"), reentrant
    )


@both
@pytest.mark.parametrize(
    "options", [{}, {"update": vq.Gradient(), "estimator": "rotation"}], ids=["EMA", "Gradient"]
)
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_step_equals_the_eager_one(
    options: dict[str, Any], shared: bool
) -> None:
    """With k-means in the first step, in one graph, and without a recompile afterwards."""
    torch._dynamo.reset()
    eager, module = (_residual(shared=shared, **options) for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")
    call: Callable[..., Any] = torch.compile(module, backend=counter, fullgraph=True)
    for number, x in enumerate(batches(5)):
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        outs = [function(leaf) for function, leaf in zip((eager, call), leaves, strict=True)]
        for out in outs:
            (out.quantized.square().sum() + out.loss).backward()
        assert torch.equal(outs[0].quantized, outs[1].quantized)
        assert torch.equal(outs[0].indices, outs[1].indices)
        assert torch.equal(leaves[0].grad, leaves[1].grad)
        if number == 1:
            settled = counter.frame_count
    assert counter.frame_count == settled
    assert_same_state(module, snapshot(eager))
    torch._dynamo.reset()


@both
@all_updates
def test_k_plus_m_steps_equal_k_steps_save_load_m_steps(update: Update, shared: bool) -> None:
    xs = batches(7)
    whole = _residual(update=update, shared=shared)
    expected = train(whole, xs, make_optimizer(whole))
    first = _residual(update=update, shared=shared)
    optimizer = make_optimizer(first)
    train(first, xs[:3], optimizer)
    file = io.BytesIO()
    torch.save([first.state_dict(), optimizer and optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)

    second = _residual(seed=9, update=update, shared=shared)
    second.load_state_dict(states[0], strict=True)
    optimizer = make_optimizer(second)
    if optimizer is not None:
        optimizer.load_state_dict(states[1])
    outs = train(second, xs[3:], optimizer)
    assert_same_state(second, snapshot(whole))
    for out, wanted in zip(outs, expected[3:], strict=True):
        assert torch.equal(out.quantized, wanted.quantized)


def test_the_state_is_float32_under_half() -> None:
    module = _residual().half()
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32, torch.int64}
    assert module(batches(1)[0].half()).quantized.dtype == torch.float16


def test_eval_and_encode_change_no_state() -> None:
    module = _residual()
    train(module, batches(2))
    module.eval()
    before = snapshot(module)
    (x,) = batches(1)
    module(x)
    module.encode(x)
    assert_same_state(module, before)


@both
def test_leaving_training_mode_and_flush_apply_what_is_pending(shared: bool) -> None:
    left, flushed, parent = (_residual(shared=shared) for _ in range(3))
    for module in (left, flushed, parent):
        train(module, batches(2))
    flushed.flush()
    left.eval()
    nn.Sequential(parent).eval()
    assert_same_state(left, snapshot(flushed))
    assert_same_state(parent, snapshot(flushed))
    assert all(level.pending_steps == 0 for level in left.quantizers)


def test_a_first_batch_without_rows_initialises_nothing() -> None:
    module = _residual()
    before = snapshot(module)
    module(batches(1)[0], torch.zeros(64, dtype=torch.bool))
    assert_same_state(module, before)


def test_init_codebook_initialises_what_is_not_yet() -> None:
    (x,) = batches(1)
    module, stepped = _residual(), _residual()
    module.init_codebook(x)
    assert [int(level.initialised) for level in module.quantizers] == [1] * LEVELS
    stepped(x)
    for mine, theirs in zip(module.quantizers, stepped.quantizers, strict=True):
        assert torch.equal(mine.codebook, theirs.codebook)
    before = snapshot(module)
    module.init_codebook(batches(1, seed=75)[0])
    assert_same_state(module, before)


def _different(**changed: Any) -> Callable[[], vq.nn.VectorQuantizer]:
    options = iter([{}, changed])
    return lambda: quantizer(**next(options))


CONSTRUCTORS: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((3, 2), TypeError, "make must be callable or a sequence of quantizers, got 3"),
    ((quantizer, 0), ValueError, "levels must be at least 1, got 0"),
    ((quantizer, 1.0), TypeError, "levels must be an integer, got 1.0"),
    ((lambda: nn.Linear(2, 2), 2), TypeError, "make must return a VectorQuantizer, got Linear"),
    ((quantizer,), TypeError, "levels must be an integer, got None"),
    (([],), ValueError, "levels must be at least 1, got 0"),
    (([quantizer()], 2), ValueError, "make must hold 2 quantizers, got 1"),
    ((_different(d=5), 2), ValueError, "make must return quantizers with equal embedding_dim, go"),
    ((_different(update=None), 2), ValueError, "make must return quantizers with equal update,"),
    ((_different(commitment_weight=1.0), 2), ValueError, "make must return quantizers with equal"),
    ((_different(estimator="rotation"), 2), ValueError, "make must return quantizers with equal"),
    ((_different(channel_dim=-1), 2), ValueError, "make must return quantizers with equal chann"),
    ((_different(backend="reference"), 2), ValueError, "make must return quantizers with equal b"),
    ((_different(revive=None), 2), ValueError, "make must return quantizers with equal revive"),
    (
        (lambda: quantizer(metric="cosine"), 2),
        ValueError,
        "make must return quantizers with metric='l2', got 'cosine'",
    ),
    (
        (itertools.repeat(quantizer()).__next__, 2),
        ValueError,
        "make must give every part a new module, got one twice",
    ),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), CONSTRUCTORS)
def test_the_constructor_refuses(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        vq.nn.ResidualVQ(*arguments)
    assert type(caught.value) is kind


@pytest.mark.parametrize("shape", [(64,), (64, LEVELS + 1), (64, 0)])
def test_decode_refuses_another_number_of_levels(shape: tuple[int, ...]) -> None:
    message = re.escape("indices must have shape (*positions, levels) with 1 to 3 levels, got")
    with pytest.raises(ValueError, match=f"^{message}"):
        _residual().decode(torch.zeros(shape, dtype=torch.int64))


@all_updates
def test_a_refused_training_forward_leaves_the_state_as_it_was(update: Update) -> None:
    module = _residual(update=update)
    train(module, batches(2))
    before = snapshot(module)
    (x,) = batches(1)
    for bad, mask in ((x[:, :5], None), (x, x > 0), (x.long(), None)):
        with pytest.raises((TypeError, ValueError)):
            module(bad, mask)
        assert_same_state(module, before)

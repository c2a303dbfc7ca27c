"""Levels of a residual quantizer may differ in their number of codes."""

from __future__ import annotations

import pytest
import torch
from modules import UPDATES, D, assert_same_state, batches, make_optimizer, quantizer, snapshot
from modules import train as train_steps

import vqkernels as vq

SIZES = (16, 5, 9)


def _residual(**options: object) -> vq.nn.ResidualVQ:
    return vq.nn.ResidualVQ([quantizer(seed, k=k, **options) for seed, k in enumerate(SIZES)])


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_each_level_trains_as_the_quantizer_that_it_is(
    update: vq.EMA | vq.Gradient | None,
) -> None:
    """With k-means and revival: no code of the others, nor of what fills them up, is met."""
    module = _residual(update=update)
    alone = [quantizer(seed, k=k, update=update) for seed, k in enumerate(SIZES)]
    for x in batches(6):
        out, left, total = module(x), x, 0.0
        for level, single in enumerate(alone):
            step = single(left)
            assert torch.equal(out.indices[:, level], step.indices)
            assert torch.equal(out.usage.counts[level, : SIZES[level]], step.usage.counts)
            assert not out.usage.counts[level, SIZES[level] :].any()
            code = step.quantized.detach()
            left, total = left - code, code + total
        assert torch.equal(out.quantized, total)
        for mine, single in zip(module.quantizers, alone, strict=True):
            assert_same_state(mine, snapshot(single))


def test_each_codebook_gets_the_gradient_of_its_own_codes() -> None:
    module = _residual(update=vq.Gradient(), init="normal")
    (x,) = batches(1)
    module(x).loss.backward()
    left = x
    for level in module.quantizers:
        book = level.codebook.detach().clone().requires_grad_()
        alone = vq.residual_quantize(left, [book])
        alone.loss.backward()
        assert torch.equal(level.codebook.grad, book.grad)
        left = left - alone.quantized.detach()


def test_evaluation_and_decode_agree() -> None:
    module = _residual()
    train_steps(module, batches(4), make_optimizer(module))
    module.eval()
    (x,) = batches(1, seed=77)
    for _ in range(3):  # packed from the second call on, where it can be
        out = module(x)
        assert torch.equal(module.encode(x), out.indices)
        assert torch.equal(module.decode(out.indices), out.quantized)


def test_a_compiled_step_equals_the_eager_one() -> None:
    torch._dynamo.reset()
    eager, module = _residual(), _residual()
    call = torch.compile(module, backend="aot_eager", fullgraph=True)
    for x in batches(3):
        assert torch.equal(call(x).quantized, eager(x).quantized)
    assert_same_state(module, snapshot(eager))
    torch._dynamo.reset()


def test_a_sequence_says_how_many_levels_there_are() -> None:
    module = _residual()
    assert module.levels == len(SIZES)
    assert [level.codebook.shape for level in module.quantizers] == [(k, D) for k in SIZES]
    shared = vq.nn.ResidualVQ([quantizer()], 4, shared=True)
    assert shared(batches(1)[0]).indices.shape == (64, 4)

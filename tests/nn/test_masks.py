"""Masked positions touch nothing."""

from __future__ import annotations

import re
from typing import Any

import cases
import pytest
import torch
from modules import (
    KINDS,
    UPDATES,
    WIDTH,
    assert_same_state,
    batches,
    quantizer,
    snapshot,
    train,
)
from torch import Tensor, nn

import vqkernels as vq

MASK = torch.arange(64) % 3 != 0


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_what_lies_under_the_mask_leaves_no_trace_in_the_state(
    update: vq.EMA | vq.Gradient | None, backend: str
) -> None:
    states = []
    for fill in (0.0, 777.0, torch.nan):
        module = quantizer(update=update, backend=backend)
        train(
            module,
            [torch.where(MASK[:, None], x, torch.tensor(fill)) for x in batches(5)],
            mask=MASK,
        )
        module.flush()
        states.append(snapshot(module))
    for other in states[1:]:
        for name, value in states[0].items():
            assert torch.equal(other[name], value), name


_GARBAGE = torch.tensor([torch.nan, 3e38, -torch.inf, 777.0])
_SHAPES = {
    "BD": ((48, WIDTH), 1),
    "BDT": ((3, WIDTH, 16), 1),
    "BDHW": ((3, WIDTH, 4, 4), 1),
    "BDTHW": ((2, WIDTH, 2, 3, 4), 1),
    "BTD": ((3, 16, WIDTH), -1),
}
# Every kind with both ways of learning, and what concerns all of them alike on the deepest one.
_CASES = [(kind, update, "BDHW") for kind in KINDS for update in ("EMA", "Gradient")]
_CASES += [("nested", update, "BDHW") for update in ("EMA every 3", "frozen")]
_CASES += [
    (kind, "EMA", shape)
    for kind in ("shared groups", "nested")
    for shape in _SHAPES
    if shape != "BDHW"
]
every_case = pytest.mark.parametrize(("kind", "update", "shape"), _CASES)


def _module(kind: str, update: str, shape: str, **options: Any) -> nn.Module:
    return KINDS[kind](update=UPDATES[update], channel_dim=_SHAPES[shape][1], **options)


def _batches(count: int, shape: str) -> list[tuple[Tensor, Tensor]]:
    """Each with its mask, which hides the whole of the first example."""
    g = cases.generator(3)
    sizes, channel = _SHAPES[shape]
    xs = [torch.randn(sizes, generator=g) for _ in range(count)]
    masks = [torch.rand(x.select(channel, 0).shape, generator=g) < 0.7 for x in xs]
    for mask in masks:
        mask[0] = False
    return list(zip(xs, masks, strict=True))


@every_case
def test_what_lies_under_the_mask_leaves_no_trace(kind: str, update: str, shape: str) -> None:
    """Not in the state, with k-means and revival, nor in the loss, vectors and gradients."""
    channel, traces = _SHAPES[shape][1], []
    for dirty in (False, True):
        module = _module(kind, update, shape)
        parameters = list(module.parameters())
        trace = []
        for x, mask in _batches(3, shape):
            garbage = _GARBAGE.repeat(x.numel() // 4).reshape(x.shape) if dirty else 0.0
            filled = torch.where(mask.unsqueeze(channel), x, garbage).requires_grad_()
            out = module(filled, mask)
            valid = out.quantized.movedim(channel, -1)[mask]
            grads = torch.autograd.grad(
                valid.square().sum() + out.loss, [filled, *parameters], materialize_grads=True
            )
            for parameter, grad in zip(parameters, grads[1:], strict=True):
                parameter.data -= 0.01 * grad
            trace += [valid, out.indices, out.loss, *out.usage, *grads]
            assert torch.equal(
                out.quantized.movedim(channel, -1)[~mask].nan_to_num(),
                filled.movedim(channel, -1)[~mask].nan_to_num(),
            )
        module.flush()
        traces.append([*trace, *snapshot(module).values()])
    for value, expected in zip(*traces, strict=True):
        assert torch.equal(value, expected)
    assert all(value.isfinite().all() for value in trace)


@every_case
def test_a_fully_masked_batch_changes_nothing(kind: str, update: str, shape: str) -> None:
    module = _module(kind, update, shape)
    nothing = torch.zeros_like(_batches(1, shape)[0][1])
    for trained in (False, True):
        if trained:
            for x, mask in _batches(2, shape):
                module(x, mask)
            module.flush()
        before = snapshot(module)
        x = torch.full(_SHAPES[shape][0], torch.nan, requires_grad=True)
        out = module(x, nothing)
        assert out.loss == 0
        assert (out.indices == -1).all()
        assert not out.usage.counts.any()
        assert not out.usage.mse.any()
        assert out.quantized.isnan().all()
        (out.quantized.sum() + out.loss).backward()
        assert torch.equal(x.grad, torch.ones_like(x))
        for name, parameter in module.named_parameters():
            assert parameter.grad is None or not parameter.grad.any(), name
        module.flush()
        assert_same_state(module, before)


def test_statistics_are_those_of_the_valid_rows_alone() -> None:
    init = batches(1, 16, seed=1)[0]
    masked, alone = (quantizer(init=init, revive=None) for _ in range(2))
    for x in batches(3):
        masked(x, MASK)
        alone(x[MASK])
    masked.flush()
    alone.flush()
    assert torch.equal(masked.cluster_size, alone.cluster_size)
    # The sums are of the same rows; only where runs of 256 rows are cut may differ: float64.
    eps = torch.finfo(torch.float32).eps
    assert (masked.codebook - alone.codebook).abs().max() <= eps * alone.codebook.abs().max()


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 6, 5), (2, 6, 2, 2, 2)])
def test_a_mask_has_the_shape_of_the_positions(shape: tuple[int, ...]) -> None:
    module = quantizer()
    x = torch.randn(shape)
    positions = (shape[0], *shape[2:])
    mask = torch.arange(x[:, 0].numel()).reshape(positions) % 2 == 0
    out = module(x, mask)
    assert out.indices.shape == positions
    assert torch.equal(out.indices >= 0, mask)
    assert torch.equal(out.quantized.movedim(1, -1)[~mask], x.movedim(1, -1)[~mask])


def test_an_expanded_mask_is_read_through_its_strides() -> None:
    module, plain = quantizer(), quantizer()
    x = torch.randn(2, 6, 8)
    mask = (torch.arange(8) < 5)[None].expand(2, 8)
    out, expected = module(x, mask), plain(x, mask.clone())
    assert torch.equal(out.indices, expected.indices)
    assert_same_state(module, snapshot(plain))


def test_lengths_become_the_mask_of_a_padded_batch() -> None:
    mask = vq.mask_from_lengths(torch.tensor([2, 0, 4, 9, -1], dtype=torch.int32), 4)
    expected = [[1, 1, 0, 0], [0] * 4, [1] * 4, [1] * 4, [0] * 4]
    assert torch.equal(mask, torch.tensor(expected).bool())
    assert vq.mask_from_lengths(torch.tensor([3]), 0).shape == (1, 0)


def test_a_padded_batch_equals_its_sequences_alone() -> None:
    lengths = torch.tensor([5, 1, 7])
    module = quantizer(channel_dim=-1, init="normal").eval()
    x = torch.randn(3, 7, 6)
    out = module(x, vq.mask_from_lengths(lengths, x.shape[1]))
    for row, (sequence, length) in enumerate(zip(x, lengths.tolist(), strict=True)):
        assert torch.equal(out.indices[row, :length], module(sequence[:length]).indices)
        assert (out.indices[row, length:] == -1).all()


@pytest.mark.parametrize(
    ("lengths", "size", "kind", "message"),
    [
        ([3, 4], 5, TypeError, "lengths must be a torch.Tensor, got list"),
        (torch.ones(2), 5, TypeError, "lengths must have an integer dtype, got torch.float32"),
        (torch.tensor(3), 5, ValueError, "lengths must have shape (B,), got ()"),
        (torch.tensor([3]), -1, ValueError, "size must be at least 0, got -1"),
        (torch.tensor([3]), 2.0, TypeError, "size must be an integer, got 2.0"),
    ],
)
def test_bad_lengths_are_refused(
    lengths: Any, size: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        vq.mask_from_lengths(lengths, size)

"""Masked positions touch nothing."""

from __future__ import annotations

import pytest
import torch
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot, train

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


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_a_fully_masked_batch_changes_nothing(update: vq.EMA | vq.Gradient | None) -> None:
    module = quantizer(update=update)
    train(module, batches(2))
    module.flush()
    before = snapshot(module)
    x = batches(1, seed=72)[0].requires_grad_()
    out = module(x, torch.zeros(64, dtype=torch.bool))
    (out.quantized.sum() + out.loss).backward()
    module.flush()
    assert out.loss == 0
    assert torch.equal(out.quantized, x)
    assert torch.equal(x.grad, torch.ones_like(x))
    assert_same_state(module, before)


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

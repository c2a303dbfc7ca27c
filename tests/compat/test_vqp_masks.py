"""Masks where vector-quantize-pytorch raises or counts wrong: what is masked counts nowhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compat import agreement

from vqkernels.compat.vector_quantize_pytorch import (
    GroupedResidualVQ,
    ResidualVQ,
    VectorQuantize,
)

D, K = 16, 32
LEVELS = {"num_quantizers": 3}
COMBINATIONS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "projection": (VectorQuantize, {"codebook_dim": 4}),
    "heads": (VectorQuantize, {"codebook_dim": 4, "heads": 4}),
    "separate heads": (
        VectorQuantize,
        {"heads": 2, "separate_codebook_per_head": True, "threshold_ema_dead_code": 1},
    ),
    "cosine": (VectorQuantize, {"use_cosine_sim": True}),
    "learnable": (VectorQuantize, {"learnable_codebook": True, "ema_update": False}),
    "k-means": (VectorQuantize, {"kmeans_init": True}),
    "levels": (ResidualVQ, {**LEVELS, "codebook_dim": 4}),
    "shared levels": (ResidualVQ, {**LEVELS, "shared_codebook": True}),
    "groups": (GroupedResidualVQ, {**LEVELS, "groups": 2, "codebook_dim": 4}),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_masked_positions_count_nowhere(name: str) -> None:
    """Padded with NaN under the mask, a batch does what its valid rows alone do."""
    kind, options = COMBINATIONS[name]
    torch.manual_seed(0)
    padded = kind(dim=D, codebook_size=K, **options)
    alone = copy.deepcopy(padded)
    mask = torch.arange(50) < 40
    x = torch.randn(1, 50, D)
    nan = torch.where(mask[:, None], x, torch.nan)
    out, grad, learnt = agreement.gradients(padded, nan, lambda m, x: m(x, mask=mask[None]))
    expected, _, _ = agreement.gradients(alone, x[:, :40], lambda m, x: m(x))
    assert torch.equal(out[1][..., :40, :] if out[1].ndim > 2 else out[1][:, :40], expected[1])
    assert (out[1][..., 40:, :] if out[1].ndim > 2 else out[1][:, 40:]).unique().tolist() == [-1]
    assert not out[0][:, 40:].any()
    assert not grad[:, 40:].any()
    assert all(g is None or g.isfinite().all() for g in learnt.values())
    agreement.assert_in_one_band(out[0][:, :40], expected[0])
    agreement.assert_in_one_band(out[2], expected[2])
    for key, value in alone.state_dict().items():
        if value.is_floating_point():
            agreement.assert_in_one_band(padded.state_dict()[key], value)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_batch_that_is_masked_throughout_changes_nothing(name: str) -> None:
    kind, options = COMBINATIONS[name]
    module = kind(dim=D, codebook_size=K, **options)
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(2, 9, D, requires_grad=True)
    quantized, indices, loss = module(x, mask=torch.zeros(2, 9, dtype=torch.bool))
    loss.sum().backward()
    assert not loss.any()
    assert not quantized.any()
    assert (indices == -1).all()
    assert x.grad is None or not x.grad.any()
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("kind", [VectorQuantize, ResidualVQ])
def test_images_have_masks(kind: type[Any]) -> None:
    options = {} if kind is VectorQuantize else LEVELS
    image = kind(dim=D, codebook_size=K, accept_image_fmap=True, **options)
    flat = kind(dim=D, codebook_size=K, **options)
    flat.load_state_dict(image.state_dict())
    x, mask = torch.randn(2, D, 5, 6), torch.rand(2, 5, 6) > 0.5
    out = image(x, mask=mask)
    rows = flat(x.flatten(2).mT, mask=mask.flatten(1))
    agreement.assert_in_one_band(out[0].flatten(2).mT, rows[0])
    assert torch.equal(out[1].flatten(1, 2), rows[1])
    agreement.assert_in_one_band(out[2], rows[2])


def test_lengths_are_those_of_positions_with_channels_first() -> None:
    module = VectorQuantize(dim=D, codebook_size=K, channel_last=False).eval()
    lens = torch.tensor([3, 25])
    indices = module(torch.randn(2, D, 25), lens=lens)[1]
    assert torch.equal(indices >= 0, torch.arange(25) < lens[:, None])


def test_a_row_that_is_not_finite_shows_in_the_loss_and_counts_nowhere() -> None:
    torch.manual_seed(0)
    broken = VectorQuantize(dim=D, codebook_size=K)
    sound = copy.deepcopy(broken)
    x = torch.randn(1, 30, D)
    x[0, 7, 3] = torch.nan
    quantized, indices, loss = broken(x)
    sound(torch.cat([x[:, :7], x[:, 8:]], dim=1))
    assert indices[0, 7] == 0
    assert quantized[0, 7].isnan().all()
    assert loss.isnan()
    agreement.assert_in_one_band(broken.codebook, sound.codebook)

"""GroupedResidualVQ against vector-quantize-pytorch 1.32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compat import agreement
from compat.vqp_pairs import assert_same_step, pair

from vqkernels.compat.vector_quantize_pytorch import GroupedResidualVQ

D, K, Q, G = 16, 32, 3, 2
SEQUENCE = (3, 37, D)
MASK = torch.rand(3, 37, generator=torch.Generator().manual_seed(1)) > 0.3
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "projection": ({"codebook_dim": 4}, {}),
    "cosine": ({"use_cosine_sim": True}, {}),
    "shared": ({"shared_codebook": True}, {}),
    "learnable": ({"learnable_codebook": True, "ema_update": False}, {}),
    "one group": ({"groups": 1}, {}),
    "mask": ({}, {"mask": MASK}),
    "frozen": ({}, {"freeze_codebook": True}),
    "all codes": ({}, {"return_all_codes": True}),
}


def grouped(**options: Any) -> dict[str, Any]:
    return {"dim": D, "codebook_size": K, "num_quantizers": Q, "groups": G, **options}


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_theirs(name: str) -> None:
    options, arguments = CASES[name]
    ours, theirs = pair("GroupedResidualVQ", **grouped(**options))
    assert_same_step(ours, theirs, torch.randn(SEQUENCE), lambda m, x: m(x, **arguments))


def test_decoding_is_theirs() -> None:
    ours, theirs = pair("GroupedResidualVQ", **grouped(codebook_dim=4))
    quantized, indices, losses = ours.eval()(torch.randn(SEQUENCE))
    assert indices.shape == (G, *SEQUENCE[:2], Q)
    assert losses.shape == (G, Q)
    agreement.assert_in_one_band(ours.get_output_from_indices(indices), quantized)
    for method in ("get_codes_from_indices", "get_output_from_indices"):
        one, other = getattr(ours, method)(indices), getattr(theirs, method)(indices)
        agreement.assert_in_one_band(one, other)
    assert torch.equal(ours.codebooks, theirs.codebooks)
    assert ours.split_dim == theirs.split_dim


def test_groups_drop_the_same_levels() -> None:
    ours, _ = pair("GroupedResidualVQ", **grouped(quantize_dropout=True))
    kept = set()
    for _ in range(30):
        indices = ours(torch.randn(SEQUENCE))[1]
        levels = (indices >= 0).flatten(1, 2).all(dim=1)
        assert torch.equal(levels[0], levels[1])
        kept.add(int(levels[0].sum()))
    assert kept == {1, 2, 3}


def test_images_are_the_sequence_of_their_pixels() -> None:
    """Theirs raises for every image."""
    image = GroupedResidualVQ(**grouped(), accept_image_fmap=True).eval()
    flat = GroupedResidualVQ(**grouped()).eval()
    flat.load_state_dict(image.state_dict())
    x = torch.randn(2, D, 5, 6)
    quantized, indices, _ = image(x)
    expected = flat(x.flatten(2).mT)
    assert torch.equal(indices.flatten(2, 3), expected[1])
    assert torch.equal(quantized.flatten(2).mT, expected[0])
    agreement.assert_in_one_band(image.get_output_from_indices(indices), quantized)


def test_channels_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="dim must be a multiple of groups=3, got 16"):
        GroupedResidualVQ(**grouped(groups=3))
    with pytest.raises(ValueError, match="x must have size 16 in dimension 2"):
        GroupedResidualVQ(**grouped())(torch.randn(1, 4, 8))

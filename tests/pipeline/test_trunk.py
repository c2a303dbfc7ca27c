"""The trunk's shortcut: a linear map between a vector and the patch that it stands for."""

import pytest
import torch
from torch import Tensor, nn

from vqtrain.models import VQVAE, Signal, VQVAEConfig
from vqtrain.models.trunk import Decoder, Encoder, TrunkConfig

CONFIG = TrunkConfig(hidden=6, residual_hidden=4, patch_shortcut=True)
SIZES = {1: (24,), 2: (8, 12), 3: (4, 8, 4)}


def silenced(convolutions: nn.Module) -> None:
    """Leaves nothing of a layer's output."""
    for parameter in convolutions.parameters():
        nn.init.zeros_(parameter)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def cut(x: Tensor, side: int) -> Tensor:
    """`(B, C, *size)` to `(B, *grid, C * side^n)`, a patch in the last axis."""
    for axis in range(2, x.ndim):
        x = x.unfold(axis, side, side)
    ndim = x.ndim // 2 - 1
    grid, patch = range(2, 2 + ndim), range(2 + ndim, 2 + 2 * ndim)
    return x.permute(0, *grid, 1, *patch).flatten(1 + ndim)


@pytest.mark.parametrize("ndim", SIZES)
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_an_encoder_whose_convolutions_are_silent_maps_each_patch_alike(
    ndim: int, halvings: int
) -> None:
    encoder = Encoder(CONFIG, ndim, inputs=3, outputs=5, downsamplings=halvings).double()
    silenced(encoder.layers[-1])
    x, shortcut = inputs(2, 3, *SIZES[ndim]), encoder.shortcut
    assert shortcut is not None
    vectors = cut(x, 2**halvings) @ shortcut.weight.flatten(1).T + shortcut.bias
    assert torch.allclose(encoder(x), vectors.movedim(-1, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ndim", SIZES)
@pytest.mark.parametrize("doublings", [0, 1, 2])
def test_a_decoder_whose_convolutions_are_silent_gives_each_vector_its_patch(
    ndim: int, doublings: int
) -> None:
    decoder = Decoder(CONFIG, ndim, 5, 3, num_labels=None, upsamplings=doublings).double()
    silenced(decoder.output)
    vectors, shortcut = inputs(2, 5, *SIZES[ndim]), decoder.shortcut
    assert shortcut is not None
    bias = shortcut.bias.repeat_interleave(2 ** (ndim * doublings))
    patches = vectors.movedim(1, -1) @ shortcut.weight.flatten(1) + bias
    assert torch.allclose(cut(decoder(vectors), 2**doublings), patches, rtol=0, atol=1e-12)


def test_the_shortcut_is_added_to_what_the_convolutions_say() -> None:
    encoder = Encoder(CONFIG, 2, inputs=3, outputs=5, downsamplings=1).double()
    x = inputs(2, 3, 8, 12)
    assert encoder.shortcut is not None
    assert torch.equal(encoder(x), encoder.layers(x) + encoder.shortcut(x))


def test_a_trunk_has_no_shortcut_unless_it_is_asked_for() -> None:
    model = VQVAE(VQVAEConfig(), Signal((8, 8), 1, levels=17, num_labels=4))
    assert not any("shortcut" in name for name, _ in model.named_parameters())


def test_a_dilated_decoder_refuses_the_shortcut() -> None:
    config = VQVAEConfig(decoder="dilated", patch_shortcut=True)
    with pytest.raises(ValueError, match=r"^patch_shortcut must be false .*, got true"):
        VQVAE(config, Signal((16,), 1, levels=17, num_labels=4))

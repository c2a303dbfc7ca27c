"""PixelSNAIL's layers against plain oracles, and the prior without attention."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from pipeline.priors_contract import LABELS, K, batch
from torch import Tensor

from vqtrain.priors import CodeSpace, PixelSNAIL, PixelSNAILConfig
from vqtrain.priors.incremental import Attention, RasterConv, Step, remember


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("grid", [(6,), (4, 5), (3, 4, 3)])
def test_a_raster_conv_is_a_dense_one_with_all_later_weights_zero(
    grid: tuple[int, ...], strict: bool
) -> None:
    torch.manual_seed(0)
    layer = RasterConv(grid, 3, 4, 5, strict=strict).double()
    torch.nn.init.normal_(layer.bias)
    dense = torch.zeros(4, 3, *[5] * len(grid), dtype=torch.float64)
    earlier = [
        offset
        for offset in itertools.product(range(-2, 3), repeat=len(grid))
        if offset < (0,) * len(grid) or (offset == (0,) * len(grid) and not strict)
    ]
    for tap, offset in enumerate(earlier):
        dense[(..., *(d + 2 for d in offset))] = layer.weight[:, tap].detach()
    x = torch.randn(2, *grid, 3, dtype=torch.float64)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(grid)]
    expected = conv(x.movedim(-1, 1), dense, layer.bias, padding=2).flatten(2).mT
    torch.testing.assert_close(layer(x.flatten(1, -2)), expected)


@torch.no_grad()
def test_a_raster_conv_in_steps_starts_with_nothing_and_reads_no_stale_feature() -> None:
    layer = RasterConv((3, 4), 2, 2, 3).double()
    x = torch.randn(2, 12, 2, dtype=torch.float64)
    memory = remember(layer, 2, x)
    memory[layer][:, :-1] = torch.nan  # only what steps write may be read
    rows = [layer(x[:, t : t + 1], Step(t, memory)) for t in range(12)]
    torch.testing.assert_close(torch.cat(rows, 1), layer(x))


@torch.no_grad()
def test_attention_is_the_softmax_of_earlier_keys() -> None:
    torch.manual_seed(0)
    layer = Attention(5, 6, 2)
    q, k, v = (layer.split(torch.randn(3, 5, 6, dtype=torch.float64)) for _ in range(3))
    expected = torch.zeros(3, 2, 5, 3, dtype=torch.float64)
    for t in range(5):
        weights = (q[:, :, t, None] * k[:, :, : t + 1]).sum(-1).div(3**0.5).softmax(-1)
        expected[:, :, t] = (weights[..., None] * v[:, :, : t + 1]).sum(2)
    torch.testing.assert_close(layer(q, k, v), expected.transpose(1, 2).flatten(2))


def moved_by(prior: PixelSNAIL, t: int) -> Tensor:
    """Positions whose logits move when code t does."""
    codes, labels, upper = batch(prior.space)
    other = codes.flatten(1).clone()
    other[:, t] = (other[:, t] + 1) % K
    with torch.no_grad():
        logits = [prior(x, labels, upper).flatten(2) for x in (codes, other.view_as(codes))]
    return (logits[0] != logits[1]).any(1).any(0)


def test_without_attention_a_code_is_seen_through_a_cone_and_never_before_its_turn() -> None:
    torch.manual_seed(0)
    config = PixelSNAILConfig(width=8, first_kernel=3, layers=8, attention_every=0)
    prior = PixelSNAIL(config, CodeSpace(K, (3, 9), LABELS)).double().eval()
    corner = moved_by(prior, 8).view(3, 9)  # the last code of the first row
    assert not corner[0].any()
    # Of the next row, a position sees one column further to the right, of the one after it two.
    assert corner[1].tolist() == [False] * 7 + [True] * 2
    assert corner[2].tolist() == [False] * 6 + [True] * 3


def test_broken_contracts_are_named() -> None:
    space = CodeSpace(K, (3, 4), LABELS)
    with pytest.raises(ValueError, match="kernel must be odd, got 4"):
        PixelSNAILConfig(kernel=4)
    with pytest.raises(ValueError, match="first_kernel must be odd and at least 3, got 1"):
        PixelSNAILConfig(first_kernel=1)
    with pytest.raises(ValueError, match="width must be a multiple of heads 3, got 32"):
        PixelSNAILConfig(heads=3)
    with pytest.raises(ValueError, match=r"codes must have shape \(B, 3, 4\), got \(2, 4, 3\)"):
        PixelSNAIL(PixelSNAILConfig(), space)(torch.zeros(2, 4, 3, dtype=torch.long), 0)

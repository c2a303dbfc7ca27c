"""The identity tokenizer: codes are levels, in raster order, and nothing is lost."""

import pytest
import torch

from vqtrain.models import Identity, Signal


@pytest.mark.parametrize(
    ("size", "channels", "grid"),
    [
        ((8,), 1, (8,)),
        ((4, 6), 1, (4, 6)),
        ((4, 6), 3, (4, 6, 3)),
        ((8,), 2, (8, 2)),
        ((2, 4, 6), 1, (2, 4, 6)),
    ],
)
def test_codes_are_the_levels_with_channels_last_and_give_them_back(
    size: tuple[int, ...], channels: int, grid: tuple[int, ...]
) -> None:
    model = Identity(Signal(size, channels, levels=256, num_labels=2))
    x = torch.randint(256, (5, channels, *size), dtype=torch.uint8)
    labels = torch.zeros(5, dtype=torch.long)
    codes = model.encode(x)
    assert model.code_grids == (grid,)
    assert model.codebook_sizes == (256,)
    assert torch.equal(codes[0], (x[:, 0] if channels == 1 else x.movedim(1, -1)).long())
    parameters = model.decode(codes, labels)
    uniforms = torch.rand(x.shape, dtype=torch.float64)
    assert torch.equal(model.likelihood.mean(parameters), x.float())
    assert torch.equal(model.likelihood.draw(parameters, uniforms), x.long())


def test_it_costs_nothing_and_other_levels_are_impossible() -> None:
    model = Identity(Signal((2, 2), 1, levels=17))
    x, labels = torch.tensor([[[[0, 3], [16, 5]]]], dtype=torch.uint8), torch.zeros(1).long()
    assert model.nll(x, labels).tolist() == [0.0]
    other = (model.encode(x)[0] + 1,)
    assert model.nll(x, labels, other).tolist() == [torch.inf]


def test_it_has_no_weights() -> None:
    model = Identity(Signal((8, 8), 1, levels=17))
    assert model.state_dict() == {}


def test_a_grid_of_four_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="channels must be 1 for a signal of three axes, got 3"):
        Identity(Signal((2, 4, 4), 3, levels=17))

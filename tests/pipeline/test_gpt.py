"""GPT over codes: what its positions are, and what its cache leaves out."""

import pytest
import torch
from pipeline.priors_contract import SPACES

from vqtrain.priors import CodeGPT, GPTConfig
from vqtrain.priors.transformer import LearnedPositions, Rotation


def test_rope_scores_depend_on_differences_of_coordinates_alone() -> None:
    torch.manual_seed(0)
    rotation = Rotation((3, 4), 8).double()
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    turned_q, turned_k = (rotation(x.expand(1, 1, 12, 8))[0, 0].view(3, 4, 8) for x in (q, k))
    step = {
        (i, j): (turned_q[i, j] * turned_k[i + 1, j + 1]).sum() for i in range(2) for j in range(3)
    }
    # The tables are float32 numbers, so angles add up to its precision only.
    bound = 8 * torch.finfo(torch.float32).eps * (q.norm() * k.norm()).item()
    assert max(step.values()) - min(step.values()) < bound
    other = (turned_q[0, 0] * turned_k[1, 2]).sum()
    assert abs(other - step[0, 0]) > 1e-3


def test_rope_keeps_lengths_and_turns_every_position_differently() -> None:
    rotation = Rotation((2, 3, 2), 16).double()
    x = torch.ones(1, 1, 12, 16, dtype=torch.float64)
    turned = rotation(x)[0, 0]
    torch.testing.assert_close(turned.norm(dim=1), x[0, 0].norm(dim=1), rtol=1e-6, atol=0)
    assert len(turned.unique(dim=0)) == 12
    assert torch.equal(turned[0], x[0, 0, 0])  # the first position does not turn


def test_learned_positions_are_sums_over_axes() -> None:
    positions = LearnedPositions((2, 3), 4)
    rows, columns = (axis.weight for axis in positions.axes)
    assert torch.equal(positions().view(2, 3, 4), rows[:, None] + columns)


def test_broken_contracts_are_named() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of heads 5, got 64"):
        GPTConfig(heads=5)
    with pytest.raises(ValueError, match=r"width / heads must be even and at least 6 .* got 4"):
        CodeGPT(GPTConfig(width=16, heads=4, positions="rope"), SPACES["video"])

"""Which items a step trains on: shuffled epochs without gaps, a function of seed and step."""

import pytest
import torch
from torch import Tensor

from vqtrain.fit import Order


def whole(order: Order, steps: int) -> tuple[Tensor, Tensor]:
    """Rows and draws of the first steps, one after the other."""
    rows, draws = zip(*(order.at(step) for step in range(steps)), strict=True)
    return torch.cat(rows), torch.cat(draws)


@pytest.mark.parametrize("draws", [1, 3, None])
def test_an_epoch_holds_every_row_once_and_takes_the_next_draw(draws: int | None) -> None:
    rows, drawn = whole(Order(size=10, draws=draws, batch_size=4, clean_share=None, seed=1), 15)
    for epoch, (part, number) in enumerate(zip(rows.split(10), drawn.split(10), strict=True)):
        assert part.sort().values.tolist() == list(range(10))
        expected = epoch if draws is None else epoch % draws
        assert number.tolist() == [expected] * 10


def test_a_batch_larger_than_the_set_spans_epochs() -> None:
    rows, _ = Order(size=3, draws=1, batch_size=9, clean_share=None, seed=0).at(1)
    assert rows.bincount().tolist() == [3, 3, 3]


def test_a_step_is_a_function_of_seed_and_step_alone() -> None:
    def order(seed: int) -> Order:
        return Order(size=50, draws=4, batch_size=8, clean_share=0.5, seed=seed)

    forwards, _ = whole(order(7), 40)
    late = order(7).at(39)  # without the steps before it
    assert torch.equal(late[0], forwards[-8:])
    assert not torch.equal(order(8).at(39)[0], late[0])


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, second = (whole(Order(100, 1, 100, None, seed), 3)[0].split(100) for seed in (0, 1))
    orders = {tuple(part.tolist()) for part in (*first, *second)}
    assert len(orders) == 6


def test_the_clean_share_of_every_batch_is_draw_0_and_the_rest_goes_through_all_others() -> None:
    order = Order(size=5, draws=4, batch_size=8, clean_share=0.4, seed=3)
    for step in range(10):
        assert (order.at(step)[1] == 0).sum() == 3
    rows, draws = whole(order, 9)  # 27 clean items and 45 warped ones: three epochs of 5 * 3
    for kind, times in ((draws == 0, None), (draws > 0, 3)):
        pairs = torch.stack((rows[kind], draws[kind]), dim=1).unique(dim=0, return_counts=True)[1]
        assert times is None or pairs.tolist() == [times] * 15
        assert pairs.max() - pairs.min() <= 1


def test_endless_draws_are_never_repeated_beside_the_clean_share() -> None:
    rows, draws = whole(Order(size=6, draws=None, batch_size=4, clean_share=0.25, seed=0), 20)
    warped = torch.stack((rows, draws), dim=1)[draws > 0]
    assert len(warped) == 60 == len(warped.unique(dim=0))


def test_a_set_with_one_draw_is_all_clean() -> None:
    rows, draws = whole(Order(size=8, draws=1, batch_size=4, clean_share=0.5, seed=0), 4)
    assert not draws.any()
    assert rows.bincount().tolist() == [2] * 8

"""Data sets that are made, not stored: a training set of which no item ever comes back.

A prior overfits a stored set within a minute or two. Here every epoch (a draw of all rows) has
new items. Validation and test are other, fixed streams of the same numbers, whatever the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vqtrain.data.config import DataConfig
from vqtrain.data.counter import uniforms
from vqtrain.data.dataset import Dataset, Split, check_within
from vqtrain.models.tokenizer import Signal

# First part of the counter's key. Draws 0 of validation and test are never a training item.
STREAMS = {"train": 0, "validation": 1, "test": 2}

Render = Callable[[Tensor, Tensor], Tensor]


class Recipe(NamedTuple):
    """How items are made.

    Attributes:
        render: `(n,)` labels and `(n, factors)` float64 uniforms to `(n, C, *size)` uint8.
        factors: numbers that an item takes.
        signal: shape and levels of an item.
        class_names: in label order.
    """

    render: Render
    factors: int
    signal: Signal
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ProceduralTrainSet:
    """Items made from row and draw; a row keeps its class, so every epoch is balanced.

    Args:
        recipe: how they are made.
        size: rows.
        key: of the counter.
    """

    recipe: Recipe
    size: int
    key: tuple[int, ...]
    draws: None = None

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """See `TrainSet.batch`.

        Raises:
            ValueError: if a row or a draw is out of range.
        """
        check_within(rows, draws, self.size, self.draws)
        labels = rows % len(self.recipe.class_names)
        numbers = uniforms(self.key, rows, draws, self.recipe.factors)
        return Split(self.recipe.render(labels, numbers), labels, rows)


def procedural_dataset(recipes: dict[str, Recipe], config: DataConfig, seed: int) -> Dataset:
    """A data set of a recipe for each split.

    Args:
        recipes: by split; they may differ in `render` only.
        config: `train_size` and `held_out`.
        seed: decides the training items; the held-out ones are always the same.
    """

    sizes = {"train": config.train_size, "validation": config.held_out, "test": config.held_out}
    sets = {
        split: ProceduralTrainSet(
            recipe, sizes[split], (STREAMS[split], seed if split == "train" else 0)
        )
        for split, recipe in recipes.items()
    }
    return Dataset.of(sets, recipes["train"].signal, recipes["train"].class_names)


def between(u: Tensor, low: float, high: float) -> Tensor:
    """Uniform numbers of [0, 1) spread over `low .. high`."""
    return low + (high - low) * u

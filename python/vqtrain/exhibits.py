"""Pictures of what the models do with held-out items, unselected: the first ones that fit."""

from pathlib import Path

import torch
from torch import Tensor

from vqtrain.data.dataset import Dataset
from vqtrain.pictures import Panel, sheet

COLUMNS = 10
WEIGHTS = tuple(step / 8 for step in range(9))  # of the second end of an interpolation
PAIRS = 6


def reconstruction_sheet(path: Path, dataset: Dataset, means: Tensor) -> None:
    """Held-out items above their reconstructions: the first two of each of the first classes.

    Args:
        path: PNG to write.
        dataset: whose test split was decoded.
        means: `(N, C, *size)` decoder means of the test split.
    """
    rows, names = [], []
    for index in reconstruction_rows(dataset.test.labels):
        rows += [dataset.test.x[index].float(), means[index]]
        names += ["original", "decoded"]
    title = "Held-out items and what is kept of them"
    sheet(path, [Panel(title, names, torch.stack(rows))], dataset.signal.levels)


def interpolation_sheet(path: Path, between: Tensor, dataset: Dataset, pairs: Tensor) -> None:
    """From one held-out item to another of the same class, through the vectors between them.

    Vectors between codes are no codes, so this shows the decoder's space and not what a prior
    could draw.

    Args:
        path: PNG to write.
        between: `(P, len(WEIGHTS), C, *size)` decoded items.
        dataset: whose test split was decoded.
        pairs: `(P, 2)` of its rows, the two ends.
    """
    ends = dataset.test.x[pairs].float()
    rows = torch.cat((ends[:, :1], between, ends[:, 1:]), dim=1)
    names = [dataset.class_names[label] for label in dataset.test.labels[pairs[:, 0]]]
    title = "Between two held-out items (outermost), decoded"
    if dataset.signal.ndim != 2:  # too wide to stand side by side: from top to bottom instead
        rows = rows.transpose(0, 1)
        names = ["one item", *(f"{weight:.0%}" for weight in WEIGHTS), "another"]
    sheet(path, [Panel(title, names, rows)], dataset.signal.levels)


def pairs_of_a_class(labels: Tensor) -> Tensor:
    """`(P, 2)` rows: the first two items of each of the first `PAIRS` classes.

    With fewer classes, further items of them; none at all where no class has two.
    """
    classes = labels.unique().tolist()
    pairs: list[Tensor] = []
    for turn in range(PAIRS):
        for label in classes:
            rows = (labels == label).nonzero().flatten()[2 * turn : 2 * turn + 2]
            if len(rows) == 2 and len(pairs) < PAIRS:
                pairs.append(rows)
    return torch.stack(pairs) if pairs else torch.zeros(0, 2, dtype=torch.int64)


def reconstruction_rows(labels: Tensor) -> tuple[Tensor, ...]:
    """Two rows of at most `COLUMNS` items: one of every class in turn, then again.

    Without classes, items at equal distances: neighbours are crops of the same photograph. A
    single item makes a single row.
    """
    columns = max(1, min(COLUMNS, len(labels) // 2))
    shown = min(2 * columns, len(labels))
    by_class = [(labels == label).nonzero().flatten() for label in labels.unique()]
    if len(by_class) == 1:
        return torch.linspace(0, len(labels) - 1, shown).long().split(columns)
    turns = range(max(len(rows) for rows in by_class))
    order = [rows[turn] for turn in turns for rows in by_class if turn < len(rows)]
    return torch.stack(order[:shown]).split(columns)

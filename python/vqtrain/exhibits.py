"""Pictures of what the models do with held-out items, unselected: the first ones that fit."""

from pathlib import Path

import torch
from torch import Tensor

from vqtrain.data.dataset import Dataset, Split
from vqtrain.models import VQVAE
from vqtrain.models.tokenizer import Codes, Tokenizer
from vqtrain.pictures import Panel, sheet

COLUMNS = 10
STEPS = 9  # of an interpolation, both ends counted
PAIRS = 6


def reconstruction_sheet(path: Path, dataset: Dataset, means: Tensor) -> None:
    """Held-out items above their reconstructions: the first two of each of the first classes.

    Args:
        path: PNG to write.
        dataset: whose test split was decoded.
        means: `(N, C, *size)` decoder means of the test split.
    """
    rows, names = [], []
    for index in _first_of_each_class(dataset.test.labels):
        rows += [dataset.test.x[index].float(), means[index]]
        names += ["original", "decoded"]
    title = "Held-out items and what is kept of them"
    sheet(path, [Panel(title, names, torch.stack(rows))], dataset.signal.levels)


@torch.no_grad()
def interpolation_sheet(path: Path, tokenizer: VQVAE, items: Split, codes: Codes) -> None:
    """From one held-out item to another of the same class, through the code vectors between.

    The vectors between two codes are no codes, so this shows the decoder's space and not what the
    prior could draw.

    Args:
        path: PNG to write.
        tokenizer: on the device of the codes.
        items: held-out items.
        codes: theirs, one tensor per level.
    """
    pairs = pairs_of_a_class(items.labels)
    first, second = (tokenizer.quantizer.decode(codes[0][pairs[:, end]]) for end in (0, 1))
    labels = items.labels[pairs[:, 0]].to(first.device)
    columns = [
        tokenizer.likelihood.mean(tokenizer.decoder(torch.lerp(first, second, weight), labels))
        for weight in torch.linspace(0, 1, STEPS).tolist()
    ]
    interpolation_panel(path, torch.stack(columns, dim=1).cpu(), items.x[pairs], tokenizer)


def interpolation_panel(path: Path, between: Tensor, ends: Tensor, model: Tokenizer) -> None:
    """Draws `(pairs, STEPS, C, *size)` decoded items between `(pairs, 2, C, *size)` real ones."""
    rows = torch.cat((ends[:, :1].float(), between, ends[:, 1:].float()), dim=1)
    title = "Between two held-out items (outermost) of a class, decoded"
    sheet(path, [Panel(title, [""] * len(rows), rows)], model.signal.levels)


def pairs_of_a_class(labels: Tensor) -> Tensor:
    """`(P, 2)` rows: the first two items of each of the first `PAIRS` classes.

    With fewer classes, further items of them.
    """
    classes = labels.unique().tolist()
    pairs: list[Tensor] = []
    for turn in range(PAIRS):
        for label in classes:
            rows = (labels == label).nonzero().flatten()[2 * turn : 2 * turn + 2]
            if len(rows) == 2 and len(pairs) < PAIRS:
                pairs.append(rows)
    return torch.stack(pairs)


def _first_of_each_class(labels: Tensor) -> tuple[Tensor, ...]:
    """Two rows of at most `COLUMNS` items: one of every class in turn, then again."""
    by_class = [(labels == label).nonzero().flatten() for label in labels.unique()]
    turns = range(max(len(rows) for rows in by_class))
    order = [rows[turn] for turn in turns for rows in by_class if turn < len(rows)]
    columns = min(COLUMNS, len(order) // 2)
    return torch.stack(order[: 2 * columns]).split(columns)

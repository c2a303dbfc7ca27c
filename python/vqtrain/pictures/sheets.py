"""Sheets of signals in rows: samples, reconstructions, completions, interpolations."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor

from vqtrain.pictures.style import ACCENT, WIDTH, figure, no_frame
from vqtrain.pictures.tiles import envelope, filmstrip, montage

STRIP_FRAMES = 12  # of all videos in a row together
WAVES = 4  # sounds in a row
WAVE_COLUMNS = 160
WAVE_HEIGHT = 0.5  # inches
TALLEST = 9.0  # inches; pictures of many rows are shown smaller
TITLE_HEIGHT = 0.45  # inches
ROW = 6  # samples without a class in a row
LETTER = 0.09  # inches of a row's name


class Panel(NamedTuple):
    """Signals in named rows.

    Attributes:
        title: above them.
        row_names: one per row.
        items: `(rows, columns, C, *size)` levels; videos and sounds show fewer columns.
    """

    title: str
    row_names: Sequence[str]
    items: Tensor


def sheet(path: Path, panels: Sequence[Panel], levels: int, width: float = WIDTH) -> None:
    """Panels side by side.

    Args:
        path: PNG to write.
        panels: with equally many rows.
        levels: number of levels of an entry.
        width: inches of a panel.
    """
    shown = [_fitting(panel.items) for panel in panels]
    names = max(len(name) for panel in panels for name in panel.row_names) * LETTER
    needed = max(_height(items, width - names) for items in shown)
    height = min(needed, TALLEST) + TITLE_HEIGHT
    with figure(path, height, [width] * len(panels)) as axes:
        for ax, panel, items in zip(axes, panels, shown, strict=True):
            ax.set_title(panel.title)
            if items.ndim == 4:
                _waves(ax, items, levels, panel.row_names)
            else:
                _images(ax, items, levels, panel.row_names)


def sample_sheet(
    path: Path,
    means: Tensor,
    drawn: Tensor | None,
    class_names: Sequence[str],
    levels: int,
    temperature: float,
) -> None:
    """One row per class: the first samples as decoder means, and the same codes with pixels drawn.

    Without classes, the samples are in rows of equal length.

    Args:
        path: PNG to write.
        means: `(classes, shown, C, *size)` levels.
        drawn: the same shape, entries drawn from the decoder's likelihood; None without one.
        class_names: names of the rows.
        levels: number of levels.
        temperature: of the prior, for the title.
    """
    if len(class_names) == 1:
        means, drawn = _in_rows(means), None if drawn is None else _in_rows(drawn)
        class_names = [""] * len(means)
    title = f"Samples at temperature {temperature:g}, uncurated"
    panels = [Panel(f"{title}: mean of the decoder", class_names, means)]
    if drawn is not None:
        panels.append(Panel("The same codes, drawn from the decoder", class_names, drawn))
    sheet(path, panels, levels, width=6.5)


def _in_rows(items: Tensor) -> Tensor:
    """`(1, n, ...)` to `(n // ROW, ROW, ...)`; fewer than a row stay one."""
    length = min(ROW, items.shape[1])
    whole = items.shape[1] // length * length
    return items[0, :whole].unflatten(0, (-1, length))


def _fitting(items: Tensor) -> Tensor:
    """The first columns that can be told apart on the page; videos as strips of frames.

    Of channels that are neither grey levels nor colours, the first is shown.
    """
    if items.shape[2] not in (1, 3):
        items = items[:, :, :1]
    if items.ndim == 4:
        return items[:, :WAVES]
    if items.ndim == 6:
        return filmstrip(items[:, : max(1, STRIP_FRAMES // items.shape[3])])
    return items


def _height(items: Tensor, width: float) -> float:
    """Inches that keep pixels square."""
    if items.ndim == 4:
        return len(items) * WAVE_HEIGHT
    rows, columns, _, tall, wide = items.shape
    return 0.95 * width * rows * (tall + 1) / (columns * (wide + 1))


def _images(axes: Axes, items: Tensor, levels: int, row_names: Sequence[str]) -> None:
    """A montage with a name at each row; pixels stay sharp squares."""
    axes.imshow(montage(items, levels), interpolation="nearest")
    axes.set_anchor("NW")
    height = items.shape[-2] + 1
    axes.set_yticks([row * height + height / 2 - 1 for row in range(len(items))], row_names)
    no_frame(axes)


def _waves(axes: Axes, items: Tensor, levels: int, row_names: Sequence[str]) -> None:
    """The first channel of each sound as its envelope, from left to right in each row."""
    columns = min(WAVE_COLUMNS, items.shape[-1])
    low, high = envelope(items[:, :, 0], levels, columns)
    for row in range(items.shape[0]):
        for column in range(items.shape[1]):
            x = torch.arange(columns) + column * columns * 1.1
            lower, upper = (edge[row, column] * 0.45 - row for edge in (low, high))
            # The line keeps visible what the area cannot: a stretch of one value.
            axes.fill_between(x, lower, upper, color=ACCENT, linewidth=0.6)
    axes.set_yticks([-row for row in range(len(items))], row_names)
    axes.set_ylim(0.6 - len(items), 0.6)
    axes.margins(x=0)
    no_frame(axes)

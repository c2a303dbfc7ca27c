"""Every picture of a run, in one style: ink on white, one accent colour, no frames."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vqtrain.data.dataset import Split
from vqtrain.metrics.ledger import CodeUsage

INK, ACCENT, FAINT = "#1f2430", "#2563a8", "#b8bec9"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "savefig.dpi": 130,
    "legend.frameon": False,
}
RECONSTRUCTIONS_PER_CLASS = 2


@contextmanager
def _figure(path: Path, width: float, height: float, columns: int = 1) -> Iterator[list[Axes]]:
    """Axes side by side in the common style, saved to `path` at the end."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, columns, figsize=(width, height), layout="constrained", squeeze=False
        )
        yield list(axes[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)


def montage(images: Tensor, levels: int, gap: int = 1) -> np.ndarray:
    """Tiles grey images with blank pixels between them.

    Args:
        images: `(rows, columns, 1, H, W)` grey levels.
        levels: number of grey levels.
        gap: blank pixels, level 0, between images.

    Returns:
        `(rows * (H + gap) - gap, columns * (W + gap) - gap)` float in [0, 1].
    """
    rows, columns, _, height, width = images.shape
    page = torch.zeros(rows, columns, height + gap, width + gap, dtype=torch.float64)
    page[..., :height, :width] = images[:, :, 0].double().clamp(0, levels - 1) / (levels - 1)
    tiled = page.transpose(1, 2).reshape(rows * (height + gap), columns * (width + gap))
    return tiled[: len(tiled) - gap, : tiled.shape[1] - gap].numpy()


def _show(axes: Axes, images: Tensor, levels: int, row_names: Sequence[str], title: str) -> None:
    """A montage with a name at each row; pixels stay sharp squares, high levels are ink."""
    axes.imshow(montage(images, levels), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    height = images.shape[-2] + 1
    axes.set_yticks([row * height + height / 2 - 1 for row in range(len(images))], row_names)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=8)
    axes.spines[:].set_visible(False)
    axes.set_title(title, pad=10)


def sample_sheet(
    path: Path,
    means: Tensor,
    drawn: Tensor,
    class_names: Sequence[str],
    levels: int,
    temperature: float,
) -> None:
    """One row per class: the first samples as decoder means, and the same codes with pixels drawn.

    Args:
        path: PNG to write.
        means: `(classes, shown, 1, H, W)` grey levels.
        drawn: the same shape, pixels drawn from the decoder's likelihood.
        class_names: names of the rows.
        levels: number of grey levels.
        temperature: of the prior, for the title.
    """
    with _figure(path, 13, 5.9, columns=2) as axes:
        title = f"Samples at temperature {temperature:g}, uncurated: mean of the decoder"
        _show(axes[0], means, levels, class_names, title)
        _show(axes[1], drawn, levels, class_names, "The same codes, pixels drawn from the decoder")


def reconstruction_sheet(
    path: Path, images: Split, means: Tensor, class_names: Sequence[str], levels: int
) -> None:
    """Held-out images above their reconstructions: the first of each class, unselected.

    Args:
        path: PNG to write.
        images: a split.
        means: `(N, 1, H, W)` decoder means of its images.
        class_names: classes in label order.
        levels: number of grey levels.
    """
    rows, names = [], []
    for number in range(RECONSTRUCTIONS_PER_CLASS):
        first = torch.stack(
            [(images.labels == label).nonzero()[number, 0] for label in range(len(class_names))]
        )
        rows += [images.x[first].float(), means[first]]
        names += ["original", "decoded"]
    with _figure(path, 10, 4.3) as (axes,):
        _show(axes, torch.stack(rows), levels, names, "Held-out images and what their codes keep")


def usage_chart(path: Path, usage: CodeUsage) -> None:
    """How often each code occurs in the held-out images, against equal use."""
    share = (usage.counts / usage.counts.sum()).numpy()
    size = len(share)
    with _figure(path, 7, 3.2) as (axes,):
        axes.bar(range(size), share, color=ACCENT, width=0.8)
        axes.axhline(
            1 / size, color=INK, linewidth=1, linestyle="--", label=f"equal use, 1/{size}"
        )
        axes.set_xlabel("code")
        axes.set_ylabel("share of held-out codes")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(
            f"Codebook: {usage.used:.0%} of {size} codes used, perplexity {usage.perplexity:.1f}"
        )
        axes.margins(x=0.01, y=0.2)  # room for the legend above the bars
        axes.legend(loc="upper right")


def curves(path: Path, logs: Sequence["Curve"]) -> None:
    """Training and validation against the step, one panel per model, the kept step marked."""
    with _figure(path, 11, 3.8, columns=len(logs)) as panels:
        for axes, log in zip(panels, logs, strict=True):
            axes.plot(
                log.steps,
                log.train,
                color=FAINT,
                linewidth=2,
                label="training, with warped copies and dropout",
            )
            axes.plot(log.steps, log.validation, color=ACCENT, linewidth=2, label="validation")
            best = min(range(len(log.steps)), key=log.validation.__getitem__)
            axes.plot(log.steps[best], log.validation[best], "o", color=INK, label="kept")
            for name, value in log.references.items():
                axes.axhline(value, color=INK, linewidth=1, linestyle=":")
                axes.text(log.steps[-1], value, name, ha="right", va="bottom", fontsize=9)
            axes.set_xlabel("step")
            axes.set_ylabel(log.unit)
            axes.set_title(log.title)
            axes.legend()


class Curve(NamedTuple):
    """One panel of `curves`.

    Attributes:
        title: of the panel.
        unit: of the values.
        steps: at which the values were logged.
        train: mean training value since the line before.
        validation: validation values.
        references: named horizontal lines.
    """

    title: str
    unit: str
    steps: list[int]
    train: list[float]
    validation: list[float]
    references: dict[str, float]

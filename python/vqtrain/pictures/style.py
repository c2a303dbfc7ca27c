"""The one style of all pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

INK, ACCENT, FAINT = "#1f2430", "#2563a8", "#b8bec9"
WIDTH = 7.0  # inches of a single panel; two of them stand side by side on a wide page
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
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


@contextmanager
def figure(path: Path, height: float, widths: Sequence[float] = (WIDTH,)) -> Iterator[list[Axes]]:
    """Axes side by side in the common style, saved to `path` at the end.

    Args:
        path: PNG to write; missing parent folders are made.
        height: inches.
        widths: inches of each panel.
    """
    with plt.rc_context(STYLE):
        drawn, axes = plt.subplots(
            1,
            len(widths),
            figsize=(sum(widths), height),
            width_ratios=widths,
            layout="constrained",
            squeeze=False,
        )
        try:
            yield list(axes[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.savefig(path)
        finally:
            plt.close(drawn)


def no_frame(axes: Axes) -> None:
    """Leaves the row names alone around a picture."""
    axes.set_xticks([])
    axes.tick_params(length=0, pad=8)
    axes.spines[:].set_visible(False)

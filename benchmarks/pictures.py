"""How the pictures of the documents are drawn and kept; each names the numbers that it shows."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INK, RULE = "#333333", "#dddddd"


def differs(path: Path, numbers: Any) -> bool:
    """Whether a picture shows other numbers than these; not how this version draws them."""
    return not path.exists() or _digest(numbers) not in path.read_text()


@contextlib.contextmanager
def figure(path: Path, numbers: Any, size: tuple[float, float]) -> Iterator[Any]:
    """A matplotlib figure that is written to ``path`` at the end; ``size`` is in inches."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "svg.hashsalt": "vqk",
    }
    with plt.rc_context(style):
        drawn = plt.figure(figsize=size, layout="constrained")
        yield drawn
        metadata = {"Date": None, "Description": _digest(numbers)}
        drawn.savefig(path, facecolor="white", metadata=metadata)
        plt.close(drawn)


def plain(axis: Any) -> None:
    """A light grid behind the data, and no frame."""
    axis.grid(axis="both", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, colors=INK, which="both")
    axis.spines[:].set_visible(False)


def _digest(numbers: Any) -> str:
    return "rows " + hashlib.sha256(json.dumps(numbers).encode()).hexdigest()

"""The picture of README.md: every contender's time as a multiple of ours, with its quartiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import speed_cases

from benchmarks import peers, pictures, tables
from benchmarks.machine import ROOT
from benchmarks.peers import OURS
from benchmarks.pictures import INK

PATH = ROOT / "docs" / "images" / "benchmarks.svg"
# Okabe and Ito's colours, which colour-blind readers tell apart; a shape each as well.
_LOOKS = {
    "torch N x K": ("#999999", "s"),
    "torch.cdist": ("#56b4e9", "D"),
    "torch chunked": ("#0072b2", "o"),
    "torch.compile": ("#009e73", "^"),
    "faiss IndexFlatL2": ("#d55e00", "o"),
    "scikit-learn": ("#e69f00", "v"),
    "hand-written torch": ("#999999", "s"),
    "vector-quantize-pytorch": ("#cc79a7", "o"),
}


class Panel(NamedTuple):
    title: str
    cases: list[str]
    points: dict[str, dict[str, list[float]]]  # contender -> case -> quartiles of times ours


def panels() -> list[Panel]:
    wanted = {
        "nearest_code": [c.name for c in (*speed_cases.SEARCH, *speed_cases.FEW_ROWS)],
        "residual_quantize": [c.name for c in speed_cases.RESIDUAL],
        "training_step": [c.name for c in speed_cases.TRAINING],
    }
    made = []
    for table, cases in wanted.items():
        points: dict[str, dict[str, list[float]]] = {}
        for row in tables.rows(table):
            if row["case"] in cases and row.get("times_ours") and row["provider"] in _LOOKS:
                points.setdefault(row["provider"], {})[row["case"]] = row["times_ours"]
        shown = [case for case in cases if any(case in of for of in points.values())]
        order = [p.name for p in peers.TABLES[table] if p.name in points]
        title = table.replace("_", " ").capitalize()
        made.append(Panel(title, shown, {name: points[name] for name in order}))
    return [panel for panel in made if panel.cases]


def stale() -> bool:
    return pictures.differs(PATH, panels())


def draw() -> None:
    shown = panels()
    heights = [len(panel.cases) for panel in shown]
    size = (8, 1.2 + 0.36 * sum(heights) + 0.5 * len(shown))
    with pictures.figure(PATH, shown, size) as figure:
        axes = figure.subplots(len(shown), sharex=True, height_ratios=heights, squeeze=False)
        for axis, panel in zip(axes[:, 0], shown, strict=True):
            _draw_panel(axis, panel)
        axes[-1, 0].set_xlabel(f"times as long as {OURS}; median and quartiles, log scale")


def _draw_panel(axis: Any, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    lines = {case: len(panel.cases) - 1 - i for i, case in enumerate(panel.cases)}
    for name, of_case in panel.points.items():
        colour, marker = _LOOKS[name]
        low, middle, high = zip(*of_case.values(), strict=True)
        y = [lines[case] for case in of_case]
        axis.hlines(y, low, high, color=colour, linewidth=1.2, alpha=0.6)
        axis.plot(
            middle, y, marker, color=colour, label=name, markersize=7.5, markeredgecolor="white"
        )
    axis.axvline(1.0, color=INK, linewidth=1.2)
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axis.set_yticks(list(lines.values()), list(lines))
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.set_title(f"{panel.title}: N, K, D", loc="left", fontsize=9, color=INK)
    pictures.plain(axis)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

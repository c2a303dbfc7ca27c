"""The picture of docs/benchmarks.md: time per row against the number of codes."""

from __future__ import annotations

from benchmarks import pictures, pruning
from benchmarks.machine import ROOT
from benchmarks.peers import OURS

PATH = ROOT / "docs" / "images" / "pruned-search.svg"
_LOOKS = {
    OURS: ("#0072b2", "o", OURS),
    pruning.DENSE: ("#999999", "s", f"{OURS}, all codes"),
    pruning.FAISS: ("#d55e00", "D", pruning.FAISS),
}


def stale() -> bool:
    curves = pruning.curves()
    return bool(curves) and pictures.differs(PATH, curves)


def draw() -> None:
    curves = pruning.curves()
    with pictures.figure(PATH, curves, (6, 3.4)) as figure:
        axis = figure.subplots()
        for name, points in curves.items():
            colour, marker, label = _LOOKS[name]
            axis.plot(*zip(*points, strict=True), marker=marker, color=colour, label=label)
        axis.set_xscale("log", base=4)
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter(lambda k, _: f"{k:.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("codes")
        axis.set_ylabel("microseconds per row")
        pictures.plain(axis)
        axis.legend(frameon=False)

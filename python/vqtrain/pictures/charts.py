"""Charts of numbers: usage of a codebook, a training, bits, distances, rate against distortion."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from vqtrain.metrics.usage import CodeUsage
from vqtrain.pictures.style import ACCENT, FAINT, INK, figure

BARS = 128  # codes that can be told apart as bars; more are sorted into a line


class Curve(NamedTuple):
    """A training.

    Attributes:
        title: of the chart.
        unit: of the values.
        steps: at which the values were logged.
        train: mean training value since the line before; NaN where it was not finite.
        validation: validation values, likewise.
        references: named horizontal lines.
    """

    title: str
    unit: str
    steps: Sequence[int]
    train: Sequence[float]
    validation: Sequence[float]
    references: Mapping[str, float]


class Distances(NamedTuple):
    """Quantiles of one distribution of distances, least first."""

    name: str
    quantiles: Sequence[float]


class Point(NamedTuple):
    """One model of a comparison.

    Attributes:
        name: short, written at the point.
        series: points of a series are joined.
        bits: x, bits per dimension of the codes or altogether.
        psnr: y, dB.
        bits_error: standard error of `bits`, over seeds or items; None where unknown.
        psnr_error: of `psnr`.
    """

    name: str
    series: str
    bits: float
    psnr: float
    bits_error: float | None = None
    psnr_error: float | None = None


class Bits(NamedTuple):
    """One row of `bits_chart`: bits per dimension; for an autoencoder `codes` are its KL."""

    name: str
    recon: float
    codes: float
    total_error: float | None = None


def usage_chart(path: Path, usage: CodeUsage, title: str = "Codebook") -> None:
    """How often each code occurs in the held-out items, against equal use."""
    share = (usage.counts / usage.counts.sum()).cpu().numpy()
    size = len(share)
    with figure(path, 3.2) as (axes,):
        if size <= BARS:
            axes.bar(range(size), share, color=ACCENT, width=0.8)
            axes.set_xlabel("code")
        else:
            axes.fill_between(range(size), sorted(share, reverse=True), color=ACCENT, step="mid")
            axes.set_xlabel("code, by how often it occurs")
        axes.axhline(
            1 / size, color=INK, linewidth=1, linestyle="--", label=f"equal use, 1/{size}"
        )
        axes.set_ylabel("share of held-out codes")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(
            f"{title}: {usage.used:.0%} of {size} codes used, perplexity {usage.perplexity:.1f}"
        )
        axes.margins(x=0.01, y=0.2)  # room for the legend above the bars
        axes.legend(loc="upper right")


def curve(path: Path, log: Curve) -> None:
    """Training and validation against the step, the kept step marked."""
    with figure(path, 3.6) as (axes,):
        axes.plot(
            log.steps, log.train, color=FAINT, linewidth=2, label="training (dropout, warps)"
        )
        axes.plot(log.steps, log.validation, color=ACCENT, linewidth=2, label="validation")
        validated = zip(log.validation, log.steps, strict=True)
        best, step = min((value, step) for value, step in validated if not math.isnan(value))
        axes.plot(step, best, "o", color=INK, label="kept")
        for name, value in log.references.items():
            axes.axhline(value, color=INK, linewidth=1, linestyle=":")
            axes.text(log.steps[-1], value, name, ha="right", va="bottom", fontsize=9)
        axes.set_xlabel("step")
        axes.set_ylabel(log.unit)
        axes.set_title(log.title)
        axes.legend()


def neighbours_chart(path: Path, distributions: Sequence[Distances]) -> None:
    """Distances to the nearest training item: range, middle 90 % and middle half, and median.

    Args:
        path: PNG to write.
        distributions: each with the quantiles 0, 5, 25, 50, 75, 95 and 100 %, first one on top.
    """
    with figure(path, 0.9 + 0.6 * len(distributions)) as (axes,):
        for row, (_, q) in enumerate(distributions):
            colour = ACCENT if row == 0 else FAINT
            axes.plot((q[0], q[6]), (-row, -row), color=colour, linewidth=1)
            axes.plot((q[1], q[5]), (-row, -row), color=colour, linewidth=4)
            axes.plot((q[2], q[4]), (-row, -row), color=colour, linewidth=11)
            axes.plot(q[3], -row, "|", color=INK, markersize=16, markeredgewidth=2)
        axes.set_yticks(
            [-row for row in range(len(distributions))], [d.name for d in distributions]
        )
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(left=0)
        axes.margins(y=0.2)
        axes.set_title("Distance to the nearest training item")
        axes.set_xlabel("Euclidean, entries in [0, 1]; bars: 50, 90 and 100 %, tick: median")


def rate_distortion(path: Path, points: Sequence[Point], rate: str, title: str) -> None:
    """PSNR against bits per dimension, a line per series, with standard errors where known.

    Args:
        path: PNG to write.
        points: at least one.
        rate: label of the bits.
        title: of the chart.
    """
    series = list(dict.fromkeys(point.series for point in points))
    styles = [(ACCENT, "o", "-"), (INK, "s", "--"), (FAINT, "D", ":"), (ACCENT, "^", "-.")]
    with figure(path, 4.2) as (axes,):
        for index, name in enumerate(series):
            colour, marker, line = styles[index % len(styles)]
            members = sorted((p for p in points if p.series == name), key=lambda p: p.bits)
            axes.errorbar(
                [p.bits for p in members],
                [p.psnr for p in members],
                xerr=[p.bits_error or 0 for p in members],
                yerr=[p.psnr_error or 0 for p in members],
                color=colour,
                marker=marker,
                linestyle=line,
                label=name,
            )
            for p in members if index == 0 else ():  # the others are the same models
                axes.annotate(
                    p.name, (p.bits, p.psnr), (5, -11), textcoords="offset points", fontsize=9
                )
        axes.set_xlabel(rate)
        axes.set_ylabel("PSNR, dB")
        axes.set_title(title)
        axes.margins(0.12)
        if len(series) > 1:
            axes.legend()


def bits_chart(
    path: Path,
    rows: Sequence[Bits],
    title: str,
    references: Mapping[str, float] | None = None,
) -> None:
    """Totals split into reconstruction and codes, as bars, with the total's standard error.

    Args:
        path: PNG to write.
        rows: first one on top.
        title: of the chart.
        references: named vertical lines, such as a rung of the ladder.
    """
    with figure(path, 1.3 + 0.38 * len(rows)) as (axes,):
        places = [-row for row in range(len(rows))]
        recon, codes = [r.recon for r in rows], [r.codes for r in rows]
        totals = [r.recon + r.codes for r in rows]
        axes.barh(places, recon, color=FAINT, height=0.7, label="reconstruction")
        axes.barh(places, codes, left=recon, color=ACCENT, height=0.7, label="codes")
        for place, row, total in zip(places, rows, totals, strict=True):
            if row.total_error is not None:
                axes.errorbar(total, place, xerr=row.total_error, color=INK, capsize=3)
            axes.text(
                total + max(totals) * 0.02 + (row.total_error or 0),
                place,
                f"{total:.3f}",
                va="center",
                fontsize=9,
            )
        for name, value in (references or {}).items():
            axes.axvline(value, color=INK, linewidth=1, linestyle=":", label=name)
        axes.set_yticks(places, [row.name for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("bits per dimension, held out")
        axes.set_title(title)
        axes.margins(x=0.15, y=0.02)
        axes.figure.legend(loc="outside lower left", ncols=3, fontsize=9)

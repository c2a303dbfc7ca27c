"""What a cache saves a gated PixelCNN when it samples, against a plain forward per position.

The plain forward is given every advantage that needs no cache: it computes no row after the
position, and the logits of that position alone; drawing the codes is left out of its time. All
positions of a row cost it the same, so one in every row is timed and stands for the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import floors, results, timing, words
from benchmarks.results import Row
from benchmarks.verdicts import Rows, Verdict, field
from vqtrain.priors import CodeSpace, GatedPixelCNN, PixelCNNConfig, Sampler
from vqtrain.priors.sampling import draw

TABLE = "code_sampling"
CACHED, PLAIN = "cached", "plain forward"
THREADS = 1  # the model is small: a second thread costs more than it brings


class SamplingCase(NamedTuple):
    """A prior of `layers` layers, `width` wide, over `grid` of K codes, and how many grids."""

    batch: int
    width: int = 64
    layers: int = 8
    grid: tuple[int, int] = (32, 32)
    k: int = 512

    @property
    def name(self) -> str:
        grid = " x ".join(map(str, self.grid))
        return f"{self.width} x {self.layers}, {grid} of {self.k}, batch {self.batch}"

    def tiny(self) -> SamplingCase:
        """The same in no time."""
        return self._replace(width=8, layers=2, grid=(4, 4), k=16)


CASES = (SamplingCase(1), SamplingCase(16))


class Measured(NamedTuple):
    """Samples of both ways, those of the plain forward summed over all positions.

    Attributes:
        timed: positions of the plain forward that were timed.
        judged: codes that the cached sampler drew.
        other: how many of them the plain forward would have drawn otherwise.
    """

    cached: timing.Samples
    plain: timing.Samples
    timed: int
    judged: int
    other: int


@torch.no_grad()
def measure(case: SamplingCase, device: torch.device, effort: timing.Effort) -> Measured:
    """Both ways in turns, on the same model and codes."""
    torch.manual_seed(0)
    space = CodeSpace(case.k, case.grid)
    config = PixelCNNConfig(width=case.width, layers=case.layers)
    model = GatedPixelCNN(config, space).to(device).eval()
    labels = torch.zeros(case.batch, dtype=torch.int64, device=device)

    def cached() -> Tensor:
        return model.generate(labels, torch.Generator().manual_seed(1))

    codes = cached()
    height, width = case.grid
    positions = range(width // 2, space.positions, width)

    def plain() -> None:
        for position in positions:
            model.logits_at(codes, labels, position=position)

    plain()
    taken = timing.interleaved({CACHED: cached, PLAIN: plain}, device, effort)
    times = taken[PLAIN]
    whole = times._replace(seconds=[seconds * width for seconds in times.seconds])
    other = others(model, codes, labels, torch.Generator().manual_seed(1))
    return Measured(taken[CACHED], whole, height, codes.numel(), other)


@torch.no_grad()
def others(model: GatedPixelCNN, codes: Tensor, labels: Tensor, generator: torch.Generator) -> int:
    """How many codes the plain forward draws otherwise, told the codes before them.

    Where there is none, sampling with it from the start ends in the same codes, by induction.
    """
    shape = (len(codes), model.space.positions)
    uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(codes.device)
    logits = model(codes, labels).flatten(2).transpose(1, 2).flatten(0, 1)
    drawn = draw(logits, uniforms.flatten(), Sampler())
    return int((drawn != codes.flatten()).sum())


def rows(case: SamplingCase, measured: Measured, where: Row) -> list[Row]:
    """One of each way; ``where`` holds machine, commit and what else a run shares."""
    ratios = timing.ratios(measured.plain.seconds, measured.cached.seconds)
    both = {
        CACHED: (
            measured.cached,
            timing.Quartiles(1.0, 1.0, 1.0),
            case.batch * math.prod(case.grid),
        ),
        PLAIN: (measured.plain, ratios, case.batch * measured.timed),
    }
    return [
        {
            **{"case": case.name, "provider": provider, **where, **case._asdict()},
            "seconds": results.rounded(timing.quartiles(samples.seconds)),
            "samples": len(samples.seconds),
            "times_ours": results.rounded(times),
            "timed_codes": timed,
            "judged_codes": measured.judged,
            "other_codes": measured.other,
        }
        for provider, (samples, times, timed) in both.items()
    ]


def verdicts(measured: Rows) -> Iterator[Verdict]:
    """That the codes are the same ones, and how much sooner they are there."""
    for case, floor in floors.TIMES_CACHED_SAMPLING.items():
        times = field(measured, case, PLAIN, "times_ours")
        yield Verdict(TABLE, case, f"vs {PLAIN}", None if times is None else times[1], floor)
        other = field(measured, case, CACHED, "other_codes")
        yield Verdict(TABLE, case, "codes that differ", other, 0, at_most=True)


def table(device: str) -> str:
    """One line per case of the latest run on a kind of device."""
    by_case = words.cases(results.latest(results.load(TABLE, device)))
    lines = []
    for case, listed in by_case.items():
        cached, plain = (next(r for r in listed if r["provider"] == p) for p in (CACHED, PLAIN))
        seconds = cached["seconds"][1]
        codes = cached["batch"] * math.prod(cached["grid"])
        lines.append(
            [
                case,
                f"{words.duration(seconds)}, {words.number(codes / seconds)} codes/s",
                words.duration(plain["seconds"][1]),
                words.ratio(plain),
                f"{cached['other_codes']} of {cached['judged_codes']}",
            ]
        )
    headings = ["width x layers, codes", CACHED, PLAIN, "times cached (quartiles)"]
    made = words.markdown([*headings, "codes that differ"], lines)
    return made + words.caption(results.latest(results.load(TABLE, device)))

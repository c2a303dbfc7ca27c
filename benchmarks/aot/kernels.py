"""A compiled launch: what it uses, what its loops hold, how many blocks share a multiprocessor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.aot import calls, flow, launches, sass
from benchmarks.aot.architectures import blocks_per_processor
from benchmarks.aot.launches import Launch

_WARP = 32


class Kernel(NamedTuple):
    call: str  # that launched it first
    launch: Launch
    compiled: Any  # Triton's
    code: tuple[sass.Instruction, ...]
    resources: sass.Resources

    @property
    def label(self) -> str:
        constants = (f"{name}={_short(value)}" for name, value in self.launch.constants.items())
        return f"{self.launch.name} sm_{self.launch.arch} {self.call} {' '.join(constants)}"

    @property
    def ptx(self) -> str:
        return str(self.compiled.asm["ptx"])

    @property
    def threads(self) -> int:
        return int(_WARP * self.compiled.metadata.num_warps)

    @property
    def spills(self) -> int:
        """LDL and STL, wherever they stand."""
        return sass.spills(self.code)

    @property
    def spills_in_loops(self) -> int:
        return sum(sass.spills(loop.instructions) for loop in flow.loops(list(self.code)))

    @property
    def blocks_per_processor(self) -> int:
        metadata = self.compiled.metadata
        return blocks_per_processor(
            self.launch.arch,
            metadata.num_warps,
            self.resources.registers,
            metadata.shared,
            getattr(metadata, "tmem_size", None) or 0,
        )

    @property
    def per_pair(self) -> dict[str, float] | None:
        """Instructions of every kind per (row, code) pair and thread in the main loop.

        None for a kernel that has no pairs.
        """
        rule = PAIRS.get(self.launch.name)
        loop = flow.main_loop(list(self.code))
        if rule is None or loop is None:
            return None
        step = rule(self.launch)
        counts = loop.counts(step.trips)
        return {kind: count * self.threads / step.pairs for kind, count in counts.items()}


class Step(NamedTuple):
    """One iteration of a main loop: pairs of a block, and iterations of the loops inside it."""

    pairs: int
    trips: int = 1


def _screen(launch: Launch) -> Step:
    values = launch.values
    return Step(values["ROWS"] * values["CODES"] * values.get("TILES", 1))


def _screen_in_chunks(launch: Launch) -> Step:
    """The loop inside it goes over the chunks."""
    return Step(_screen(launch).pairs, trips=launch.values["chunks"])


# Kernel -> what one iteration of its main loop does.
PAIRS: dict[str, Callable[[Launch], Step]] = {
    "screen": _screen,
    "screen_in_chunks": _screen_in_chunks,
}


@functools.cache
def every_kernel(arch: int) -> tuple[Kernel, ...]:
    """Every kernel that a call of ``calls.CALLS`` launches, once."""
    found: dict[str, Kernel] = {}
    recorded = [
        (label, launch)
        for label, call in calls.CALLS.items()
        for launch in launches.record(arch, call)
    ]
    together = launches.compiled_together([launch for _, launch in recorded])
    for (label, launch), compiled in zip(recorded, together, strict=True):
        if compiled.hash not in found:
            cubin = compiled.asm["cubin"]
            code = tuple(sass.instructions(cubin))
            found[compiled.hash] = Kernel(label, launch, compiled, code, sass.resources(cubin))
    return tuple(found.values())


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value

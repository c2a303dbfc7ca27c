"""A line per kernel and architecture: ``python -m benchmarks.aot``, ``make aot``.

Spills are LDL and STL, in loops / anywhere. The last columns are instructions per (row, code) pair
in the main loop of a search: "ALU" those of which a multiprocessor does 64 lanes per clock, "FMA"
float32 arithmetic at the full rate, "all" everything that is issued.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import words
from benchmarks.aot import sass
from benchmarks.aot.architectures import PROCESSORS
from benchmarks.aot.kernels import Kernel, every_kernel

_HEADINGS = (
    "kernel",
    "call",
    "constants",
    "sm",
    "warps",
    "registers",
    "stack",
    "spills",
    "shared",
    "blocks",
    "ALU",
    "FMA",
    "all",
)


def cells(kernel: Kernel) -> list[str]:
    metadata, per_pair = kernel.compiled.metadata, kernel.per_pair
    rates = ["", "", ""]
    if per_pair is not None:
        shown = per_pair.get("alu", 0), per_pair.get("fma", 0), sum(per_pair.values())
        rates = [words.number(value) for value in shown]
    return [
        kernel.launch.name,
        kernel.call,
        " ".join(f"{name}={value}" for name, value in kernel.launch.constants.items()),
        str(kernel.launch.arch),
        str(metadata.num_warps),
        str(kernel.resources.registers),
        str(kernel.resources.stack),
        f"{kernel.spills_in_loops}/{kernel.spills}",
        str(metadata.shared),
        str(kernel.blocks_per_processor),
        *rates,
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, nargs="*", default=list(PROCESSORS))
    parser.add_argument("--kernel", default="", help="only kernels with this in their name")
    arguments = parser.parse_args(argv)
    if not sass.cuobjdump().exists():
        print("this Triton has no cuobjdump")
        return 1
    found = [k for arch in arguments.arch for k in every_kernel(arch)]
    shown = [k for k in found if arguments.kernel in k.launch.name]
    shown.sort(key=lambda k: (k.launch.name, k.call, k.launch.arch))
    print(words.columns([list(_HEADINGS), *map(cells, shown)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

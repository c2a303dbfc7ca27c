"""Writes tables and plots of README.md and docs from benchmarks/results.

``python -m benchmarks.render``; ``--run runs/digits`` first takes metrics and picture of that run
over; ``--check`` changes nothing and fails when something is stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    code_sampling,
    digits,
    growth_plot,
    pipeline,
    plots,
    pruning,
    results,
    tables,
)
from benchmarks.machine import ROOT
from benchmarks.trust import table

_DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "search": tables.search,
        "residual": tables.residual,
        "training": tables.training,
        "converted": tables.converted,
        "digits": digits.ledger,
    },
    "docs/benchmarks.md": {
        "peak": tables.peak,
        "wrong": tables.wrong_rows,
        "codes": tables.codes,
        "pruned": pruning.search,
        "pruned-upkeep": pruning.upkeep,
        "pruned-growth": pruning.growth,
        "pruned-step": pruning.step,
        "pruned-latents": pruning.latents,
        "sampling": lambda: code_sampling.table("cpu"),
        "sampling-gpu": lambda: code_sampling.table("cuda"),
        "details": tables.details,
        "gpu": tables.gpu,
    },
    "docs/pipeline.md": {
        "digits-table": pipeline.digits,
        "photos-table": pipeline.photos,
        "presets": pipeline.runs,
    },
    "docs/trust.md": {"trust": table.trust},
}


def render(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """``text`` with what stands between ``<!-- name: ... -->`` and ``<!-- /name -->`` replaced."""
    for name, make in blocks.items():
        start, end = f"<!-- {name}: [^\n]* -->\n", f"<!-- /{name} -->"
        parts = re.split(f"({start}).*?({end})", text, flags=re.DOTALL)
        if len(parts) != 4:
            raise ValueError(f"the document must hold the {name} markers once, got {text!r}")
        text = f"{parts[0]}{parts[1]}{make()}\n{parts[2]}{parts[3]}"
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when something is stale")
    parser.add_argument("--run", type=Path, help="folder of a digits run to take over")
    arguments = parser.parse_args(argv)
    if arguments.run is not None:
        digits.take_over(arguments.run)
    stale = []
    for name, blocks in _DOCUMENTS.items():
        before = (ROOT / name).read_text()
        after = render(before, blocks)
        if before != after:
            stale.append(name)
            if not arguments.check:
                results.write(ROOT / name, after)
    for picture in (plots, growth_plot):
        if picture.stale():
            stale.append(str(picture.PATH.relative_to(ROOT)))
            if not arguments.check:
                picture.draw()
    if arguments.check and stale:
        print(f"{', '.join(stale)} must match benchmarks/results; run python -m benchmarks.render")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())

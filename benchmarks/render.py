"""Writes the tables of README.md from benchmarks/results: ``python -m benchmarks.render``.

``--run runs/digits`` first takes metrics and picture of that run over; ``--check`` changes nothing
and fails when a table is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


_COLUMNS = {  # heading -> providers, of which the fastest is shown
    "vqkernels": ("vqkernels",),
    "torch, N x K matrix": ("torch, N x K matrix",),
    "torch, best block of rows": (
        "torch, 256 rows at a time",
        "torch, 1024 rows at a time",
        "torch, 4096 rows at a time",
    ),
    "faiss IndexFlatL2": ("faiss IndexFlatL2",),
}


def speed_table() -> str:
    """One row per case, one column per way: time as a multiple of ours, and wrong rows."""
    report = _load("nearest_code-cpu.json")
    lines = [
        "| search: N, K, D, data | " + " | ".join(_COLUMNS) + " |",
        "| --- " * (1 + len(_COLUMNS)) + "|",
    ]
    for case in dict.fromkeys(row["case"] for row in report["rows"]):
        rows = {row["provider"]: row for row in report["rows"] if row["case"] == case}
        cells = [
            _cell([rows[name] for name in names if name in rows]) for names in _COLUMNS.values()
        ]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    step = _load("training_step-cpu.json")
    for row in step["rows"]:
        if row["provider"] != "vqkernels":
            lines += [
                "",
                f"A training step, forward and backward with EMA, at N, K, D = {row['case']}: "
                f"the {row['provider']} class takes {row['times_ours']:.1f} times as long.",
            ]
    machine = report["machine"]
    lines += [
        "",
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"commit {report['commit']}; `make bench`.",
    ]
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "over 1 GiB"
    row = min(rows, key=lambda row: row["times_ours"])
    return f"{row['times_ours']:.1f}x; {row['wrong_rows']} of {row['checked_rows']} wrong"


_DIGITS = (
    ("total", "total_bpd", "bits/dim"),
    ("reconstruction", "recon_bpd", "bits/dim"),
    ("prior (PixelCNN)", "prior_bpd", "bits/dim"),
    ("codes under a unigram prior", "unigram_bpd", "bits/dim"),
    ("codes under a uniform prior", "uniform_bpd", "bits/dim"),
    ("ladder: class-conditional independent pixels", "ladder_class_bpd", "bits/dim"),
    ("codes K", "K", ""),
    ("usage (share of codes), ceiling", "usage", ""),
    ("perplexity", "perplexity", "codes"),
    ("samples that a classifier reads as their class", "label_agreement", ""),
    ("classifier trained on samples, tested on real digits", "cas", ""),
)


def digits_table() -> str:
    """The ledger of the digits run."""
    metrics = _load("digits.json")
    lines = ["| quantity | value |", "| --- | --- |"]
    for label, key, unit in _DIGITS:
        value = metrics[key]
        text = str(value) if isinstance(value, int) else f"{value:.3f}"
        if key == "usage":
            text += f", {metrics['usage_ceiling']:.3f}"
        lines.append(f"| {label} | {text} {unit}".rstrip() + " |")
    return "\n".join(lines)


def render(readme: str) -> str:
    """README with both tables replaced."""
    for name, table in (("benchmarks", speed_table()), ("digits", digits_table())):
        pattern = re.compile(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
        readme, count = pattern.subn(lambda match, t=table: match[1] + t + "\n" + match[2], readme)
        if count != 1:
            raise ValueError(f"README.md must hold the {name} markers once, got {count}")
    return readme


def _load(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when README.md is stale")
    parser.add_argument("--run", type=Path, help="folder of a digits run to take over")
    arguments = parser.parse_args(argv)
    if arguments.run is not None:
        shutil.copyfile(arguments.run / "metrics.json", RESULTS / "digits.json")
        shutil.copyfile(arguments.run / "samples.png", ROOT / "docs" / "images" / "samples.png")
    path = ROOT / "README.md"
    before = path.read_text()
    after = render(before)
    if arguments.check:
        if before != after:
            print("README.md must match benchmarks/results; run python -m benchmarks.render")
        return int(before != after)
    path.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())

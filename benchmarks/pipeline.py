"""What the pipeline's presets and tables reach, from the metrics that their runs leave.

``python -m benchmarks.pipeline runs/*`` takes finished runs and tables over; ``make
bench-pipeline`` makes them first. ``benchmarks.render`` writes the tables of docs/pipeline.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import floors, results, words
from benchmarks.machine import ROOT
from benchmarks.results import FOLDER
from benchmarks.verdicts import Verdict
from vqtrain.columns import Column

PATH = FOLDER / "pipeline.json"
PICTURES = ROOT / "docs" / "images"


DIGITS: tuple[Column, ...] = (
    Column("total bits/dim", "total_bpd"),
    Column("reconstruction", "recon_bpd"),
    Column("codes", "prior_bpd"),
    Column("KL", "kl_bpd"),
    Column("active units", "active_units", digits=1),
    Column("PSNR, dB", "psnr", digits=1),
    Column("label agreement, %", "label_agreement", 100, 1),
    Column("CAS, %", "cas", 100, 1),
    Column("gap, bits/image", "conditioning_gap_bits_per_image", digits=2),
)
PHOTOS: tuple[Column, ...] = (
    Column("PSNR, dB", "psnr", digits=2),
    Column("k-means on patches, dB", "psnr_patches", digits=2),
    Column("total bits/dim", "total_bpd"),
    Column("reconstruction", "recon_bpd"),
    Column("codes", "prior_bpd"),
    Column("codes, uniform", "uniform_bpd"),
    Column("16x16 codes used, %", "usage_0", 100, 1),
    Column("perplexity", "perplexity_0", digits=1),
    Column("32x32 codes used, %", "usage_1", 100, 1),
    Column("perplexity", "perplexity_1", digits=1),
)
RUNS: tuple[Column, ...] = (
    Column("minutes", "minutes", digits=1),
    Column("total bits/dim", "total_bpd"),
    Column("reconstruction", "recon_bpd"),
    Column("codes", "prior_bpd"),
    Column("unigram", "unigram_bpd"),
    Column("PSNR, dB", "psnr", digits=2),
    Column("k-means on patches, dB", "psnr_patches", digits=2),
)
# What else of a run's metrics is published or held to a floor.
READ = (
    *("rules", "rules_decoded", "rules_real", "rule_colour", "rule_shape"),
    *("psnr_by_group", "psnr_patches_by_group", "seed", "threads"),
)


def load() -> dict[str, Any]:
    """Tables and runs by name; empty before the first one was taken over."""
    content: dict[str, Any] = {"tables": {}, "runs": {}}
    return json.loads(PATH.read_text()) if PATH.is_file() else content


def take_over(folder: Path) -> None:
    """Makes a run's metrics, or a table's numbers, and their pictures the published ones."""
    content = load()
    if (folder / "table.json").is_file():
        table = json.loads((folder / "table.json").read_text())
        keys = {column.key for column in (*DIGITS, *PHOTOS)}
        for row in table["rows"]:
            row["numbers"] = {k: v for k, v in row["numbers"].items() if k in keys}
        content["tables"][folder.name] = table
        picture = folder / "rate.png"
    else:
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["minutes"] = metrics["seconds"] / 60
        keys = {column.key for column in RUNS} | set(READ)
        content["runs"][folder.name] = {k: v for k, v in metrics.items() if k in keys}
        picture = folder / "samples.png"
    results.write(PATH, json.dumps(content, indent=1) + "\n")
    shutil.copyfile(picture, PICTURES / f"{folder.name}.png")


def digits() -> str:
    return _table("digits-table", DIGITS)


def photos() -> str:
    return _table("photos-table", PHOTOS)


def runs() -> str:
    """One line per preset, and the rules' readings of shapes and tones below."""
    found = load()["runs"]
    lines = [
        [name, *(column.cell(metrics.get(column.key)) for column in RUNS)]
        for name, metrics in sorted(found.items())
    ]
    text = words.markdown(["preset", *(column.name for column in RUNS)], lines)
    read = [
        [
            f"{name}, {factor}",
            *(f"{metrics[key][factor]:.1%}" for key in ("rules", "rules_decoded", "rules_real")),
        ]
        for name, metrics in sorted(found.items())
        for factor in metrics.get("rules", {})
    ]
    head = ["read by rule", "in samples", "in reconstructions", "in real items"]
    groups = [
        [f"{name}, {group}", f"{value:.2f}", f"{metrics['psnr_patches_by_group'][group]:.2f}"]
        for name, metrics in sorted(found.items())
        for group, value in metrics.get("psnr_by_group", {}).items()
        if group in metrics.get("psnr_patches_by_group", {})
    ]
    pictures = ["PSNR by picture, dB", "decoded", "k-means on patches"]
    return "\n\n".join([text, words.markdown(head, read), words.markdown(pictures, groups)])


def verdicts() -> Iterator[Verdict]:
    """One per floor of ``floors.PIPELINE``."""
    content = load()
    for name, row, key, limit, at_most in floors.PIPELINE:
        value = _value(content, name, row, key)
        yield Verdict("pipeline", f"{name} {row}".strip(), key, value, limit, at_most)


def _value(content: dict[str, Any], name: str, row: str, key: str) -> float | None:
    """A run's number; of a table the mean over seeds of a row, or of the best of several."""
    if not row:
        metrics = content["runs"].get(name, {})
        if key == "psnr over k-means":
            both = metrics.get("psnr"), metrics.get("psnr_patches")
            return None if None in both else both[0] - both[1]
        found: float | None = metrics.get(key)
        return found
    rows = content["tables"].get(name, {"rows": []})["rows"]
    means = [
        line["numbers"][key]["mean"]
        for line in rows
        if line["name"].startswith(row) and key in line["numbers"]
    ]
    return min(means) if means else None


def _table(name: str, columns: tuple[Column, ...]) -> str:
    content = load()["tables"].get(name)
    if content is None:
        return "Not yet measured."
    lines = [
        [row["name"], *(column.cell_of(row["numbers"]) for column in columns)]
        for row in content["rows"]
    ]
    return words.markdown(["", *(column.name for column in columns)], lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="finished runs and tables")
    for folder in parser.parse_args(argv).folders:
        take_over(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The page of a table of runs: what each row's models reach, with its spread over seeds.

    python -m vqtrain.table_report runs/digits-table

Reads OUT/table.json and the sample sheets of the first seed. Writes OUT/bits.png, OUT/rate.png and
OUT/table.html, which holds them and needs no network.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vqtrain import pictures
from vqtrain.columns import Column
from vqtrain.files import read_json
from vqtrain.page import Section, picture, side_by_side, table, write_page

Numbers = dict[str, dict[str, Any]]


BITS = (
    Column("total bits/dim", "total_bpd"),
    Column("reconstruction", "recon_bpd"),
    Column("codes", "prior_bpd"),
    Column("KL", "kl_bpd"),
    Column("uniform codes", "uniform_bpd"),
    Column("PSNR, dB", "psnr", digits=2),
    Column("k-means PSNR, dB", "psnr_patches", digits=2),
    Column("SSIM", "ssim"),
)
CODES_AND_SAMPLES = (
    Column("codes used, %", "usage", 100, 1),
    Column("perplexity", "perplexity", digits=1),
    Column("active units", "active_units", digits=1),
    Column("label agreement, %", "label_agreement", 100, 1),
    Column("accuracy score, %", "cas", 100, 1),
    Column("conditioning gap, bits/item", "conditioning_gap_bits_per_image", digits=2),
    Column("local Frechet", "fd_local", digits=2),
)


def table_report(out: Path) -> Path:
    """Draws the charts of a table and writes its page.

    Args:
        out: folder of the table, with `table.json` and a folder per row and seed.

    Returns:
        The page.
    """
    content = read_json(out / "table.json", made_by="vqk run")
    rows = [(row["name"], row["numbers"]) for row in content["rows"]]
    own = [(row["name"], row["numbers"]) for row in content["rows"] if row["codes_of"] is None]
    charts = [
        (_bits(out / "bits.png", rows), "Bits per dimension of every row, in two parts"),
        (_rate(out / "rate.png", own), "PSNR of every row against the bits of its codes"),
    ]
    samples = [
        (out / name / f"seed-{content['seeds'][0]}" / "samples.png", f"Samples of {name}")
        for name, _ in rows
    ]
    seeds = ", ".join(map(str, content["seeds"]))
    several = len(content["seeds"]) > 1
    lead = f"Mean and standard error over the seeds {seeds}" if several else f"Seed {seeds}"
    lead += ", on held-out items."
    tables = {
        "Bits and reconstructions": BITS,
        "Codes and samples": (*_of_levels(rows), *CODES_AND_SAMPLES),
    }
    table_page(out / "table.html", content["title"], lead, rows, tables, charts, samples)
    return out / "table.html"


def table_page(
    path: Path,
    title: str,
    lead: str,
    rows: Sequence[tuple[str, Numbers]],
    tables: Mapping[str, Sequence[Column]],
    charts: Sequence[tuple[Path, str]] = (),
    samples: Sequence[tuple[Path, str]] = (),
) -> None:
    """Writes a page of rows of numbers, and pictures with their alternative texts.

    Args:
        path: HTML file to write.
        title: of the page.
        lead: one sentence under it.
        rows: name, and numbers by key, each with `mean` and `standard_error` (None for one seed).
        tables: heading and columns; columns that no row has are left out, and so are rows that
            have none of a table's.
        charts: side by side above the table; those that do not exist are left out.
        samples: those below, under their texts; likewise.
    """
    write_page(
        path,
        title,
        lead,
        [
            Section("", side_by_side(*(picture(*chart) for chart in charts))),
            *(Section(heading, _table(rows, columns)) for heading, columns in tables.items()),
            *(Section(text, picture(file, text)) for file, text in samples),
        ],
    )


def _table(rows: Sequence[tuple[str, Numbers]], columns: Sequence[Column]) -> str:
    shown = [column for column in columns if any(column.key in numbers for _, numbers in rows)]
    body = [
        [name, *(column.cell_of(numbers) for column in shown)]
        for name, numbers in rows
        if any(column.key in numbers for column in shown)
    ]
    return table(("", *(column.name for column in shown)), body)


def _of_levels(rows: Sequence[tuple[str, Numbers]]) -> Iterator[Column]:
    """Use of the codes of each level, as many as any row has."""
    for level in itertools.count():
        if not any(f"usage_{level}" in numbers for _, numbers in rows):
            return
        yield Column(f"codes of level {level} used, %", f"usage_{level}", 100, 1)
        yield Column("perplexity", f"perplexity_{level}", digits=1)


def _bits(path: Path, rows: Sequence[tuple[str, Numbers]]) -> Path:
    """Reconstruction and codes of every row that has a total, as bars."""
    bars = [
        pictures.Bits(
            name,
            numbers["recon_bpd"]["mean"],
            numbers["prior_bpd" if "prior_bpd" in numbers else "kl_bpd"]["mean"],
            numbers["total_bpd"]["standard_error"],
        )
        for name, numbers in rows
        if "total_bpd" in numbers
    ]
    rungs = [n["ladder_class_bpd"]["mean"] for _, n in rows if "ladder_class_bpd" in n]
    ladder = {"independent pixels, class known": rungs[0]} if rungs else {}
    if bars:
        pictures.bits_chart(path, bars, "Held-out bits: reconstruction and codes (or KL)", ladder)
    return path


def _rate(path: Path, rows: Sequence[tuple[str, Numbers]]) -> Path:
    """PSNR against the code bits under the prior, and k-means on patches against uniform bits."""
    points = []
    for name, numbers in rows:
        if "psnr" in numbers and "prior_bpd" in numbers:
            points.append(_point(name, "codes under the prior", numbers, "prior_bpd", "psnr"))
        if "psnr" in numbers and "uniform_bpd" in numbers:
            points.append(_point(name, "the same codes, uniform", numbers, "uniform_bpd", "psnr"))
        if "psnr_patches" in numbers:
            series = "k-means on raw patches, uniform"
            points.append(_point(name, series, numbers, "uniform_bpd", "psnr_patches"))
    if points:
        rate = "bits per dimension of the codes"
        pictures.rate_distortion(path, points, rate, "What codes keep")
    return path


def _point(name: str, series: str, numbers: Numbers, bits: str, psnr: str) -> pictures.Point:
    return pictures.Point(
        name,
        series,
        numbers[bits]["mean"],
        numbers[psnr]["mean"],
        numbers[bits]["standard_error"],
        numbers[psnr]["standard_error"],
    )


def main(argv: list[str] | None = None) -> None:
    """Writes the page again from `table.json`."""
    parser = argparse.ArgumentParser(description="Write the page of a table of runs.")
    parser.add_argument("out", type=Path, help="folder of the table")
    print(table_report(parser.parse_args(argv).out))


if __name__ == "__main__":
    main()

"""A table of runs: one preset, several rows of changed fields, several seeds, one page.

    vqk run digits-table --jobs 2
    vqk run digits-table --rows pixels --seeds 0 --set prior.steps=50

A table is a YAML file in `presets/tables`: `base` (a preset), `seeds`, fields that are `set` for
all, and `rows`, each with a name and the fields it sets; `codes_of` names a row whose tokenizers
and codes a row takes over.
Every row and seed is a run of its own, `OUT/ROW/seed-N`, made by `vqk run` in a process of its
own, which keeps what has finished with the same settings and goes on with what was interrupted.
OUT/table.json holds mean, standard error and every value of each number, OUT/table.html shows
them.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml

from vqtrain.files import read_json, write_json
from vqtrain.table_report import table_report

SCHEMA = 1
LEVEL_NUMBERS = ("usage", "perplexity")  # of a hierarchy, collected level by level


class Row(NamedTuple):
    """One row.

    Attributes:
        name: of the row and of its folder.
        fields: in which it differs from the base preset.
        codes_of: name of an earlier row whose tokenizers and codes it takes over.
    """

    name: str
    fields: dict[str, Any]
    codes_of: str | None = None


class Table(NamedTuple):
    """What a table file says."""

    title: str
    base: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


def tables() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(f.name.removesuffix(".yaml") for f in _folder().iterdir())


def load_table(name: str) -> Table:
    """Reads a table that comes with the package."""
    content = yaml.safe_load((_folder() / f"{name}.yaml").read_text())
    common = content.get("set") or {}
    rows = tuple(
        Row(row["name"], {**common, **(row.get("set") or {})}, row.get("codes_of"))
        for row in content["rows"]
    )
    return Table(content["title"], content["base"], tuple(content["seeds"]), rows)


def run_table(
    table: Table, out: Path, jobs: int = 1, fields: Sequence[str] = ()
) -> dict[str, Any]:
    """Makes every run of a table, or what is left to do of it, and `table.json`.

    Args:
        table: rows and seeds.
        out: folder of the table.
        jobs: runs at a time, each with the threads that the base preset names.
        fields: `section.field=value`, set in every row.

    Returns:
        The content of `table.json`.

    Raises:
        ChildProcessError: if a run fails; the others go on first. Its log is `run.log` in its
            folder.
    """
    printing = threading.Lock()

    def make(item: tuple[Row, int]) -> bool:
        row, seed = item
        folder = _run_folder(out, row.name, seed)
        values = {**row.fields, **dict(field.split("=", 1) for field in fields)}
        arguments = [table.base, "--out", str(folder), "--seed", str(seed), *options(values)]
        if row.codes_of is not None:
            _take_codes(_run_folder(out, row.codes_of, seed), folder)
        good = _run(arguments, folder)
        with printing:
            print(f"[{row.name}, seed {seed}] {'done' if good else 'FAILED'}", flush=True)
        return good

    # Rows that take over codes come after those which make them.
    for takes_over in (False, True):
        rows = [row for row in table.rows if (row.codes_of is not None) == takes_over]
        work = [(row, seed) for row in rows for seed in table.seeds]
        with ThreadPoolExecutor(jobs) as pool:
            worked = list(pool.map(make, work))
        failed = [item for item, good in zip(work, worked, strict=True) if not good]
        if failed:
            logs = ", ".join(
                str(_run_folder(out, row.name, seed) / "run.log") for row, seed in failed
            )
            raise ChildProcessError(f"every run must succeed, got failures: see {logs}")
    return collect(table, out)


def _run(arguments: list[str], folder: Path) -> bool:
    """Calls `vqk run` in a process of its own; its output goes to `run.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "vqtrain", "run", *arguments]
    with open(folder / "run.log", "a") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0


def _take_codes(source: Path, folder: Path) -> None:
    """Copies the tokenizer and the codes of another run; codes made anew there arrive here."""
    for part in ("tokenizer", "codes"):
        shutil.copytree(source / part, folder / part, dirs_exist_ok=True)


def options(fields: dict[str, Any]) -> list[str]:
    """Fields as `vqk run` takes them."""
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in fields.items()
    ]


def collect(table: Table, out: Path) -> dict[str, Any]:
    """Gathers the metrics of all runs into `table.json`."""
    rows = []
    for row in table.rows:
        runs = [
            _flat(read_json(_run_folder(out, row.name, seed) / "metrics.json", made_by="vqk run"))
            for seed in table.seeds
        ]
        numbers = {
            key: summary([run[key] for run in runs])
            for key, value in runs[0].items()
            if _is_number(value) and all(_is_number(run.get(key)) for run in runs)
        }
        entry = {"name": row.name, "set": row.fields, "codes_of": row.codes_of}
        rows.append({**entry, "numbers": numbers})
    content = {
        "schema": SCHEMA,
        "title": table.title,
        "base": table.base,
        "seeds": list(table.seeds),
        "rows": rows,
    }
    write_json(out / "table.json", content)
    return content


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with one number per level of a hierarchy of codes: `usage_0` is the top level's."""
    levels = metrics.get("levels", [])
    if len(levels) < 2:
        return metrics
    return {key: value for key, value in metrics.items() if key not in LEVEL_NUMBERS} | {
        f"{key}_{number}": level[key]
        for number, level in enumerate(levels)
        for key in LEVEL_NUMBERS
    }


def summary(values: list[float]) -> dict[str, Any]:
    """Mean over the seeds, its standard error (None for one seed) and the values."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": mean(values), "standard_error": error, "values": values}


def _run_folder(out: Path, row: str, seed: int) -> Path:
    return out / row / f"seed-{seed}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _folder() -> Any:
    return resources.files("vqtrain") / "presets" / "tables"


def main(argv: list[str] | None = None) -> None:
    """Runs a table from the command line."""
    parser = argparse.ArgumentParser(prog="vqk run", description="Make a table of runs.")
    parser.add_argument("table", choices=tables())
    parser.add_argument("--out", type=Path, help="folder; default runs/TABLE")
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0)) // 2))
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the table's own")
    parser.add_argument("--set", nargs="+", default=[], help="section.field=value for every row")
    arguments = parser.parse_args(argv)
    for field in arguments.set:
        if "=" not in field:
            parser.error(f"--set must be followed by section.field=value, got {field!r}")
    table = load_table(arguments.table)
    if arguments.rows:
        known = [row.name for row in table.rows]
        for name in arguments.rows:
            if name not in known:
                parser.error(f"--rows must be among {', '.join(known)}, got {name!r}")
        table = table._replace(rows=tuple(r for r in table.rows if r.name in arguments.rows))
    if arguments.seeds:
        table = table._replace(seeds=tuple(arguments.seeds))
    out = arguments.out or Path("runs", arguments.table)
    run_table(table, out, arguments.jobs, arguments.set)
    print(f"[table] open {table_report(out)}")


if __name__ == "__main__":
    main()

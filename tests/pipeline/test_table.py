"""Tables of runs: rows and seeds as runs of their own, gathered with standard errors."""

import json
from pathlib import Path

import pytest

from vqtrain.config import parse
from vqtrain.files import write_json
from vqtrain.table import (
    Row,
    Table,
    collect,
    load_table,
    main,
    options,
    run_table,
    summary,
    tables,
)


def small(rows: tuple[Row, ...], seeds: tuple[int, ...]) -> Table:
    return Table("Small", "digits", seeds, rows)


@pytest.mark.parametrize("name", tables())
def test_every_table_names_fields_that_exist(name: str, tmp_path: Path) -> None:
    table = load_table(name)
    assert len({row.name for row in table.rows}) == len(table.rows)
    for row in table.rows:
        parse([table.base, "--out", str(tmp_path), *options(row.fields)], "run")


def test_collected_numbers_are_means_over_seeds_with_standard_errors(tmp_path: Path) -> None:
    table = small((Row("a", {}), Row("b", {"seed": 1})), (0, 1, 2))
    for row, offset in (("a", 0.0), ("b", 10.0)):
        for seed, value in enumerate((1.0, 2.0, 6.0)):
            metrics = {"total_bpd": value + offset, "name": "x", "flag": True, "list": [1]}
            write_json(tmp_path / row / f"seed-{seed}" / "metrics.json", metrics)
    content = collect(table, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text()) == content
    first, second = content["rows"]
    assert set(first["numbers"]) == {"total_bpd"}
    assert first["numbers"]["total_bpd"] == {
        "mean": 3.0,
        "standard_error": pytest.approx((7 / 3) ** 0.5),  # variance 7, three seeds
        "values": [1.0, 2.0, 6.0],
    }
    assert second["numbers"]["total_bpd"]["mean"] == 13.0


def test_the_use_of_every_level_of_codes_is_collected(tmp_path: Path) -> None:
    top, bottom = {"usage": 0.5, "perplexity": 3.0}, {"usage": 1.0, "perplexity": 9.0}
    for name, levels in (("hierarchy", [top, bottom]), ("flat", [bottom])):
        write_json(tmp_path / name / "seed-0" / "metrics.json", {**bottom, "levels": levels})
    table = small((Row("hierarchy", {}), Row("flat", {})), (0,))
    hierarchy, flat = (
        {key: number["mean"] for key, number in row["numbers"].items()}
        for row in collect(table, tmp_path)["rows"]
    )
    assert hierarchy == {"usage_0": 0.5, "perplexity_0": 3.0, "usage_1": 1.0, "perplexity_1": 9.0}
    assert flat == bottom


def test_one_seed_has_no_standard_error() -> None:
    assert summary([2.0]) == {"mean": 2.0, "standard_error": None, "values": [2.0]}


def test_a_failed_run_names_its_log_and_leaves_no_table(tmp_path: Path) -> None:
    table = small((Row("broken", {"tokenizer.stepz": 1}),), (0,))
    with pytest.raises(ChildProcessError, match=r"must succeed, got failures: see .*run\.log"):
        run_table(table, tmp_path)
    assert "stepz" in (tmp_path / "broken" / "seed-0" / "run.log").read_text()
    assert not (tmp_path / "table.json").exists()


def test_unknown_rows_and_fields_without_a_value_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["digits-table", "--rows", "pixelz", "--out", str(tmp_path)])
    assert "--rows must be among pixels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["digits-table", "--set", "prior.steps", "5", "--out", str(tmp_path)])
    assert "--set must be followed by section.field=value, got 'prior.steps'" in (
        capsys.readouterr().err
    )

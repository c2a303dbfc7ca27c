"""Rows keyed by (case, provider, machine, commit), and files that are never half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import results


def _row(value: int, **key: str) -> results.Row:
    fields = {"case": "c", "provider": "p", "machine": "m", "commit": "1", "measured": "2026-01"}
    return {**fields, **key, "value": value}


def test_a_row_replaces_the_one_with_its_key_in_its_place() -> None:
    old = [_row(1), _row(2, provider="q")]
    assert results.merge(old, [_row(3)]) == [_row(3), _row(2, provider="q")]


@pytest.mark.parametrize("part", ["case", "provider", "machine", "commit"])
def test_a_row_that_differs_in_any_part_of_the_key_is_kept(part: str) -> None:
    other = _row(2, **{part: "other"})
    assert results.merge([_row(1)], [other]) == [_row(1), other]


def test_runs_add_up_in_the_file_of_their_device(tmp_path: Path) -> None:
    results.save("t", "cpu", [_row(1), _row(2, case="d")], tmp_path)
    results.save("t", "cpu", [_row(3)], tmp_path)
    results.save("t", "cuda", [_row(4)], tmp_path)
    assert results.load("t", "cpu", tmp_path) == [_row(3), _row(2, case="d")]
    assert results.load("t", "cuda", tmp_path) == [_row(4)]
    assert results.load("u", "cpu", tmp_path) == []


def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    results.write(path, "old")

    def crash(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="full"):
        results.write(path, "new")
    assert path.read_text() == "old"


def test_nothing_is_renamed_before_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), sync(fd)))
    monkeypatch.setattr(
        Path, "replace", lambda old, new: (order.append("rename"), replace(old, new))
    )
    results.write(tmp_path / "file", "text")
    assert order == ["fsync", "rename"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_latest_takes_each_case_from_its_last_commit_on_the_machine_that_ran_last() -> None:
    rows = [
        _row(1, measured="2026-01"),
        _row(2, measured="2026-02", commit="2"),
        _row(3, measured="2026-02", commit="2", provider="q"),
        _row(4, measured="2026-01", case="only then"),
        _row(5, measured="2025-12", machine="another"),
    ]
    assert [row["value"] for row in results.latest(rows)] == [4, 2, 3]
    assert results.latest([]) == []

"""SIGKILL at random moments, resume, and the same bits as without.

`make test-kill` does it 20 times for each command, `make test` once. Half of the deaths come after
a random time, the other half just before a random change of a file, where there is most to lose.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pipeline.nursery import Nursery
from safetensors.torch import load_file

KILLS = int(os.environ.get("KILLS", "1"))
QUICK = [
    *("--threads", "1", "--data.warped_copies", "1", "--extract.shard_items", "400"),
    *("--tokenizer.steps", "60", "--tokenizer.validate_every", "10", "--tokenizer.batch_size"),
    *("32", "--tokenizer.vqvae.hidden", "8", "--tokenizer.weight_ema", "0.9"),
    *("--prior.steps", "60", "--prior.validate_every", "10", "--prior.batch_size", "32"),
    *("--prior.pixelcnn.width", "8", "--prior.weight_ema", "0.9"),
    *("--checkpoint.every", "7", "--checkpoint.keep_every", "20", "--checkpoint.keep", "2"),
]
STAGES = (("train", "tokenizer"), ("extract",), ("train", "prior"))


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as nursery:
        yield nursery


@pytest.fixture(scope="module")
def whole(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose stages nobody has killed; `before-STAGE` beside it is the run before each."""
    folder = tmp_path_factory.mktemp("whole")
    run = folder / "run"
    for stage in STAGES:
        if run.is_dir():
            shutil.copytree(run, folder / f"before-{stage[-1]}")
        assert nursery.run(command(stage, run)).code == 0, nursery.log.read_text()
    return run


def command(stage: tuple[str, ...], run: Path) -> list[str]:
    return [*stage, "digits", "--out", str(run), *QUICK]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[-1])
def test_killed_and_resumed_it_ends_in_the_same_bits(
    stage: tuple[str, ...], nursery: Nursery, whole: Path, tmp_path: Path
) -> None:
    draw = random.Random(os.environ.get("SEED"))
    before = whole.parent / f"before-{stage[-1]}"

    def begin(name: str) -> Path:
        run = tmp_path / name
        return Path(shutil.copytree(before, run)) if before.is_dir() else run

    alive = nursery.run(command(stage, begin("alive")))
    assert alive.code == 0
    assert_same(tmp_path / "alive", whole, stage)  # or nothing below would mean anything
    run, kills = begin("killed"), 0
    while kills < KILLS:
        at = draw.random()
        if kills % 2:
            end = nursery.run(command(stage, run), seconds=at * alive.seconds)
        else:
            end = nursery.run(command(stage, run), change=1 + int(at * alive.changes))
        kills += end.killed
        if not end.killed:  # it was finished earlier than that: kill the next one
            assert end.code == 0, nursery.log.read_text()
            assert_same(run, whole, stage)
            shutil.rmtree(run)
            begin("killed")
    end = nursery.run(command(stage, run))
    assert end.code == 0, nursery.log.read_text()
    assert_same(run, whole, stage)
    assert not list(run.rglob(".*.tmp"))


def assert_same(run: Path, whole: Path, stage: tuple[str, ...]) -> None:
    """That a stage has left the same files with the same content, but for wall times."""
    folder = {"tokenizer": "tokenizer", "extract": "codes", "prior": "prior-0"}[stage[-1]]
    names = files(whole / folder)
    assert files(run / folder) == names
    for name in names:
        mine, other = run / folder / name, whole / folder / name
        if mine.name == "log.jsonl":
            assert without_seconds(mine) == without_seconds(other)
        elif mine.name == "state.safetensors":  # its header has seconds
            expected = load_file(other)
            for key, value in load_file(mine).items():
                assert torch.equal(value, expected.pop(key)), key
            assert not expected
        else:
            assert mine.read_bytes() == other.read_bytes(), name


def files(folder: Path) -> list[str]:
    """Names of what is in a folder, below a stage's own."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def without_seconds(log: Path) -> list[dict[str, float]]:
    return [{**json.loads(line), "seconds": 0.0} for line in log.read_text().splitlines()]

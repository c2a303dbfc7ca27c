"""Training that was interrupted goes on bit for bit; what would change it is refused."""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from pipeline.fitting import lines, prior, tokenizer, trainer
from safetensors.torch import load_file

from vqtrain.config import CheckpointConfig
from vqtrain.fit import Fit, finished
from vqtrain.fit.state import kept

MODELS: dict[str, Callable[[], Any]] = {"tokenizer": tokenizer, "prior": prior}
LONG = {"steps": 24, "validate_every": 4, "weight_ema": 0.9, "learning_rate": 0.01}


class Stopped(Exception):  # noqa: N818
    pass


def interrupt(at: int) -> Callable[[int], None]:
    def before_batch(number: int) -> None:
        random.random()  # so that every generator's state matters
        np.random.rand()
        if number == at:
            raise Stopped

    return before_batch


def without_seconds(folder: Path) -> list[dict[str, Any]]:
    return [{**json.loads(line), "seconds": 0} for line in lines(folder)]


def assert_same(folder: Path, other: Path) -> None:
    """That two trainings ended in the same weights, state and log, bit for bit."""
    best, other_best = ((place / "model.safetensors").read_bytes() for place in (folder, other))
    assert best == other_best
    mine, theirs = (load_file(place / "state.safetensors") for place in (folder, other))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    assert without_seconds(folder) == without_seconds(other)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_interrupted_training_ends_in_the_same_bits(
    tmp_path: Path, kind: str, accumulate: int
) -> None:
    """Checkpoints in mid-epoch (8 of 24 rows) and between validations, dropout, averages."""
    options: dict[str, Any] = {
        **LONG,
        "accumulate": accumulate,
        "checkpoints": CheckpointConfig(every=5),
    }

    def fit(folder: Path, stop: int) -> Fit:
        set_seed(0)  # as a stage does first
        return trainer(folder, MODELS[kind](), before_batch=interrupt(stop), **options).fit()

    expected = fit(tmp_path / "whole", stop=-1)
    for stop in (3, 9, 14):  # before the first checkpoint, and twice after one
        with pytest.raises(Stopped):
            fit(tmp_path / "resumed", stop)
    assert fit(tmp_path / "resumed", stop=-1)[:3] == expected[:3]
    assert_same(tmp_path / "whole", tmp_path / "resumed")


def test_training_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    filler = small_disk / "filler"

    def fill(number: int) -> None:
        if number == 9:
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    folder, other = small_disk / "run", tmp_path / "other"
    with pytest.raises(OSError, match=r"/run/.* could not be written \(No space left on device\)"):
        trainer(folder, tokenizer(), before_batch=fill, **LONG).fit()
    filler.unlink()
    trainer(folder, tokenizer(), **LONG).fit()
    trainer(other, tokenizer(), **LONG).fit()
    best, other_best = ((place / "model.safetensors").read_bytes() for place in (folder, other))
    assert best == other_best
    assert without_seconds(folder) == without_seconds(other)


def test_a_finished_training_is_not_made_again(tmp_path: Path) -> None:
    first = trainer(tmp_path, prior()).fit()
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = trainer(tmp_path, prior(), before_batch=interrupt(0))
    assert finished(tmp_path, again.settings, "auto") is not None
    assert again.fit()[:3] == first[:3]
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before


def test_never_trains_anew_from_nothing(tmp_path: Path) -> None:
    trainer(tmp_path, prior(), checkpoints=CheckpointConfig(keep_every=2)).fit()
    with pytest.raises(Stopped):  # before the first checkpoint of the new training
        trainer(tmp_path, prior(), before_batch=interrupt(1)).fit("never")
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    assert lines(tmp_path) == []
    trainer(tmp_path, prior()).fit("never")
    trainer(tmp_path / "other", prior()).fit()
    assert_same(tmp_path, tmp_path / "other")


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"learning_rate": 2e-3}, r"prior.learning_rate must be 0.001, .*, got 0.002: pass --res"),
        ({"steps": 9}, r"prior.steps must be 8, with which .* was trained, got 9"),
    ],
)
def test_other_settings_are_refused_by_name_and_change_nothing(
    tmp_path: Path, config: dict[str, Any], complaint: str
) -> None:
    def make(**config: Any) -> Any:
        fields = {"steps": 8, "learning_rate": 1e-3, **config}
        return trainer(tmp_path, prior(), settings={"prior": fields}, **fields)

    make().fit()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=complaint):
        make(**config).fit()
    with pytest.raises(ValueError, match=complaint):
        finished(tmp_path, make(**config).settings, "auto")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_kept_checkpoints_hold_weights_and_state_and_the_oldest_go(tmp_path: Path) -> None:
    options: dict[str, Any] = {**LONG, "checkpoints": CheckpointConfig(keep_every=5, keep=2)}
    trainer(tmp_path / "a", tokenizer(), **options).fit()
    names = sorted(path.name for path in (tmp_path / "a").glob("step-*"))
    assert names == ["step-000015", "step-000020"]
    for name in names:
        files = sorted(path.name for path in (tmp_path / "a" / name).iterdir())
        assert files == ["config.json", "model.safetensors", "state.safetensors"]
    # Going on from an old one repeats what came after it.
    before = without_seconds(tmp_path / "a")
    state = load_file(tmp_path / "a" / "state.safetensors")
    trainer(tmp_path / "a", tokenizer(), **options).fit(str(tmp_path / "a" / "step-000015"))
    assert without_seconds(tmp_path / "a") == before
    for name, value in load_file(tmp_path / "a" / "state.safetensors").items():
        assert torch.equal(value, state[name]), name


def test_kept_checkpoints_are_ordered_by_their_steps(tmp_path: Path) -> None:
    for name in ("step-1000000", "step-999999", "step-000500", "step-best"):
        (tmp_path / name).mkdir()
    names = [path.name for path in kept(tmp_path)]
    assert names == ["step-000500", "step-999999", "step-1000000"]


def test_a_damaged_state_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    trainer(tmp_path, prior(), checkpoints=CheckpointConfig(keep_every=4)).fit()
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-8], whole[:100], b""):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError,
            match=r"state.safetensors must be a whole safetensors file, got: .*: pass --resume "
            r".*step-000008 or pass --resume never to train anew",
        ):
            trainer(tmp_path, prior()).fit()
        assert path.read_bytes() == damaged
    trainer(tmp_path, prior()).fit(str(tmp_path / "step-000004"))
    assert path.read_bytes() != damaged


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"step-000004 is missing: pass --resume auto"):
        trainer(tmp_path, prior()).fit(str(tmp_path / "step-000004"))
    trainer(tmp_path, prior()).fit()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing, which held step"):
        trainer(tmp_path, prior()).fit()

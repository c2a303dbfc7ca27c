"""Two real processes under torchrun do what one does, also when they are killed in between.

They train on halves of its batches, and share its shards of codes.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vqtrain.cli import main
from vqtrain.files import read_json
from vqtrain.fit.state import read_header

# No dropout, and codes that do not die: nothing may be drawn within a step.
QUICK = [
    *("--threads", "1", "--device", "cpu", "--data.warped_copies", "0"),
    *("--tokenizer.steps", "50", "--tokenizer.validate_every", "25", "--tokenizer.batch_size"),
    *("64", "--tokenizer.vqvae.hidden", "16", "--tokenizer.vqvae.dropout", "0"),
    *("--tokenizer.weight_ema", "0.9", "--tokenizer.accumulate", "2"),
    *("--tokenizer.vqvae.num_embeddings", "4", "--tokenizer.learning_rate", "3e-4"),
    *("--prior.steps", "50", "--prior.validate_every", "25", "--prior.batch_size", "64"),
    *("--prior.pixelcnn.width", "16", "--prior.pixelcnn.dropout", "0"),
    *("--extract.shard_items", "400", "--checkpoint.every", "7"),
]
FIRST = Path(__file__).with_name("every_command.py")


def two_ranks(*commands: list[str]) -> "subprocess.Popen[str]":
    """Two processes that run `vqk` commands together, one after the other."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*launch, str(FIRST), json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_with_workers(launcher: "subprocess.Popen[str]") -> None:
    """SIGKILL to torchrun, so that it cannot react, and then to the ranks that it started."""
    children = Path(f"/proc/{launcher.pid}/task").glob("*/children")
    ranks = [int(pid) for path in children for pid in path.read_text().split()]
    assert len(ranks) == 2
    for pid in (launcher.pid, *ranks):
        os.kill(pid, signal.SIGKILL)
    launcher.communicate()


def output_of(process: "subprocess.Popen[str]") -> str:
    """What a process says until it ends well."""
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run folders of one process, and of two: theirs has the codes of the one's tokenizer."""
    folder = tmp_path_factory.mktemp("ranks")
    one, two, same_tokenizer = folder / "one", folder / "two", folder / "same-tokenizer"
    assert main(["train", "tokenizer", "digits", "--out", str(one), *QUICK]) == 0
    shutil.copytree(one, same_tokenizer)
    assert main(["extract", str(one)]) == 0
    assert main(["train", "prior", str(one)]) == 0
    said = output_of(
        two_ranks(
            ["train", "tokenizer", "digits", "--out", str(two), *QUICK],
            ["extract", str(same_tokenizer)],
            ["train", "prior", str(same_tokenizer)],
        )
    )
    # The first rank alone speaks.
    assert said.count("[train tokenizer] kept step 50") == 1
    assert said.count("[extract]") == 2
    assert said.count("[train prior 0] kept step 50") == 1
    for name in ("codes", "prior-0"):
        shutil.copytree(same_tokenizer / name, two / name)
    return one, two


@pytest.mark.parametrize("stage", ["tokenizer", "prior-0"])
def test_two_ranks_train_what_one_process_trains(runs: tuple[Path, Path], stage: str) -> None:
    one, two = (load_file(run / stage / "model.safetensors") for run in runs)
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "pending" in name:  # candidates for revival, drawn by each rank from its own items
            continue
        if not value.is_floating_point():
            assert torch.equal(value, two[name]), name
            continue
        error = (two[name] - value).norm() / value.norm()
        assert error <= 1e-4, f"{name}: {error:.1e}"
    if stage == "tokenizer":
        assert one["quantizer.clock"] == 50
        assert one["quantizer.revived"] == 0


@pytest.mark.parametrize("stage", ["tokenizer", "prior-0"])
def test_two_ranks_write_the_log_of_one(runs: tuple[Path, Path], stage: str) -> None:
    logs = []
    for run in runs:
        text = (run / stage / "log.jsonl").read_text()
        logs.append([json.loads(line) for line in text.splitlines()])
    assert [line["step"] for line in logs[0]] == [25, 50]
    for mine, other in zip(*logs, strict=True):
        for name in ("train", "loss", "validation"):
            assert mine[name] == pytest.approx(other[name], rel=1e-4), name


@pytest.mark.parametrize("stage", ["tokenizer", "prior-0"])
def test_the_checkpoint_holds_the_generators_of_every_rank(
    runs: tuple[Path, Path], stage: str
) -> None:
    for run, ranks in zip(runs, (1, 2), strict=True):
        state = load_file(run / stage / "state.safetensors")
        assert len(state["rng.torch"]) == ranks
    assert not torch.equal(*state["rng.torch"])


def test_two_ranks_write_the_codes_of_one(runs: tuple[Path, Path]) -> None:
    one, two = ({path.name: path for path in (run / "codes").iterdir()} for run in runs)
    assert one.keys() == two.keys()
    assert sum(name.endswith(".safetensors") for name in one) > 2  # or there is nothing to share
    for name, path in one.items():
        assert path.read_bytes() == two[name].read_bytes(), name


def test_two_ranks_killed_in_mid_training_resume_to_the_same_bits(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    train = ["train", "tokenizer", "digits", "--out", str(tmp_path), *QUICK]
    checkpoint = tmp_path / "tokenizer" / "state.safetensors"
    first = two_ranks(train)
    while not checkpoint.is_file():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    time.sleep(random.Random(os.environ.get("SEED")).random() / 20)  # 43 steps are left
    kill_with_workers(first)
    assert not read_header(checkpoint)["progress"]["finished"]
    output_of(two_ranks(train))
    killed, whole = (load_file(run / "tokenizer/state.safetensors") for run in (tmp_path, runs[1]))
    assert killed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(killed[name], value), name


def test_two_ranks_make_a_whole_run_once(tmp_path: Path) -> None:
    sounds = np.random.default_rng(0).integers(0, 256, (60, 16), dtype=np.uint8)
    np.save(tmp_path / "sounds.npy", sounds)
    options = [
        *("--threads=1", "--device=cpu", f"--data.name=npy:{tmp_path / 'sounds.npy'}"),
        *("--tokenizer.kind=identity", "--prior.steps=1", "--prior.clean_share=null"),
        *("--sample.per_class=2", "--sample.completions=0", "--eval.bootstrap=2"),
    ]
    said = output_of(two_ranks(["run", "digits", "--out", str(tmp_path / "run"), *options]))
    for name in ("run", "sample", "eval", "report"):
        assert said.count(f"[{name}]") == 2  # as it begins and as it ends
    assert set(read_json(tmp_path / "run" / "stages.json", "-")["report"]) == {"seconds", "inputs"}

"""Two real processes under torchrun train what one trains on the union of their batches."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vqtrain.cli import main

# No dropout, and codes that do not die: nothing may be drawn within a step.
QUICK = [
    *("--threads", "1", "--device", "cpu", "--data.warped_copies", "0"),
    *("--tokenizer.steps", "50", "--tokenizer.validate_every", "25", "--tokenizer.batch_size"),
    *("64", "--tokenizer.vqvae.hidden", "16", "--tokenizer.vqvae.dropout", "0"),
    *("--tokenizer.weight_ema", "0.9", "--tokenizer.accumulate", "2"),
    *("--tokenizer.vqvae.num_embeddings", "4", "--tokenizer.learning_rate", "3e-4"),
    *("--prior.steps", "50", "--prior.validate_every", "25", "--prior.batch_size", "64"),
    *("--prior.pixelcnn.width", "16", "--prior.pixelcnn.dropout", "0"),
]
FIRST = Path(__file__).with_name("every_command.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run folders of one process, and of two."""
    folder = tmp_path_factory.mktemp("ranks")
    one, two, codes = folder / "one", folder / "two", folder / "codes"
    assert main(["train", "tokenizer", "digits", "--out", str(one), *QUICK]) == 0
    assert main(["extract", str(one)]) == 0
    shutil.copytree(one, codes)
    assert main(["train", "prior", str(one)]) == 0
    commands = [
        ["train", "tokenizer", "digits", "--out", str(two), *QUICK],
        ["train", "prior", str(codes)],
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(FIRST), json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The first rank alone speaks.
    assert done.stdout.count("[train tokenizer] kept step 50") == 1
    assert done.stdout.count("[train prior 0] kept step 50") == 1
    shutil.copytree(codes / "prior-0", two / "prior-0")
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

"""Files that are whole or absent, and checkpoints that rebuild a model bit for bit."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pipeline.fitting import prior

from vqtrain import checkpoint
from vqtrain.files import remove_leftovers, sole_writer, temporary_name, write_atomic, write_json
from vqtrain.models import VQVAE
from vqtrain.priors import GatedPixelCNN


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_full_disk_is_an_error_with_a_name_and_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "a.bin"
    write_atomic(path, b"old" * 200_000)
    with pytest.raises(OSError, match=r"a.bin could not be written \(No space left on device\)"):
        write_atomic(path, b"new" * 200_000)
    assert contents(small_disk) == {"a.bin": b"old" * 200_000}
    write_atomic(small_disk / "b.bin", b"there is room")


def test_a_write_that_the_system_cuts_off_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    model = prior()
    checkpoint.save(tmp_path, model, {"step": 1})
    before = contents(tmp_path)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"model.safetensors could not be written"):
            checkpoint.save(tmp_path, model, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == before


def test_what_dead_processes_left_is_removed_and_what_others_are_writing_stays(
    tmp_path: Path,
) -> None:
    code = "import sys; from pathlib import Path; from vqtrain.files import temporary_name\n"
    code += "path = temporary_name(Path(sys.argv[1])); path.write_text('half'); print(path)"
    dead = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.json")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folder = Path(dead.replace("a.json", "step-000001"))
    folder.mkdir()
    (folder / "half").write_text("half")
    alive = temporary_name(tmp_path / "b.json")
    elsewhere = tmp_path / ".c.json.another-host-1.tmp"
    keep = [alive, elsewhere, tmp_path / "a.json", tmp_path / ".notes.tmp"]
    for path in keep:
        path.write_text("whole")
    assert Path(dead).is_file()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(keep)


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from vqtrain.files import sole_writer\n"
    code += "with sole_writer(Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with sole_writer(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "must have one writer, got a second: another process trains there" in second.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_a_checkpoint_rebuilds_the_model_bit_for_bit(tmp_path: Path) -> None:
    model = prior().eval()
    checkpoint.save(tmp_path, model, {"step": 3})
    back, header = checkpoint.load(tmp_path, GatedPixelCNN, made_by="x")
    codes, labels = torch.randint(4, (2, 2, 2)), torch.tensor([0, 1])
    assert torch.equal(back(codes, labels), model(codes, labels))
    assert header["fingerprint"] == checkpoint.fingerprint(model) == checkpoint.fingerprint(back)
    assert json.loads((tmp_path / "config.json").read_text()) == header


def test_the_fingerprint_sees_every_weight_and_the_description() -> None:
    model = prior()
    before = checkpoint.fingerprint(model)
    with torch.no_grad():
        list(model.parameters())[-1][-1] += 1e-6
    assert checkpoint.fingerprint(model) != before


def test_damaged_missing_or_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"model.safetensors is missing: run `vqk x` first"
    ):
        checkpoint.load(tmp_path, GatedPixelCNN, made_by="vqk x")
    checkpoint.save(tmp_path, prior(), {})
    with pytest.raises(ValueError, match="must have kind 'VQVAE', got 'GatedPixelCNN'"):
        checkpoint.load(tmp_path, VQVAE, made_by="vqk x")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="must be a whole safetensors file, got: "):
        checkpoint.load(tmp_path, GatedPixelCNN, made_by="vqk x")


def test_json_with_nan_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_writing_makes_parent_folders(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b", b"content")
    assert (tmp_path / "a" / "b").read_bytes() == b"content"
    assert os.listdir(tmp_path / "a") == ["b"]

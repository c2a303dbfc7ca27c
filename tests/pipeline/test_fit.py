"""The training loop: keeps the best step, writes whole files, repeats itself from a seed."""

import json
import os
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from vqtrain import checkpoint
from vqtrain.config import FitConfig
from vqtrain.files import write_atomic, write_json
from vqtrain.fit import Fit, fit
from vqtrain.models import VQVAE
from vqtrain.priors import CodeSpace, GatedPixelCNN, PixelCNNConfig


def make() -> GatedPixelCNN:
    torch.manual_seed(0)
    config = PixelCNNConfig(width=4, layers=2, dropout=0.1)
    return GatedPixelCNN(config, CodeSpace(4, (2, 2), 2))


def run(folder: Path, values: list[float] | None = None, **config: float) -> Fit:
    """Fits a small prior; `values`, if given, are what validation pretends to find."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(2, (16, 2, 2), generator=generator) * 3
    labels = torch.arange(16) % 2
    script = iter(values or [])

    def step_loss(model: GatedPixelCNN, _: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss = model.nll(codes, labels).mean()
        return loss, {"train": loss}

    def validate(model: GatedPixelCNN) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        return next(script) if values else model.nll(codes, labels).mean().item()

    return fit(
        make(),
        FitConfig(**{"steps": 8, "validate_every": 2, "warmup_steps": 0, **config}),  # type: ignore[arg-type]
        Accelerator(cpu=True),
        folder,
        step_loss=step_loss,
        validate=validate,
        facts={"origin": "test"},
    )


def test_the_best_step_on_validation_is_kept_not_the_last(tmp_path: Path) -> None:
    result = run(tmp_path / "all", values=[5.0, 3.0, 4.0, 6.0])
    assert result == Fit(best_step=4, best_value=3.0, last_step=8)
    kept, header = checkpoint.load(tmp_path / "all", GatedPixelCNN, made_by="x")
    assert header["facts"] == {"origin": "test", "step": 4, "validation": 3.0}
    # The kept weights are those of a run that has only these steps.
    run(tmp_path / "stopped", values=[5.0, 3.0, 7.0], patience=1)
    stopped, _ = checkpoint.load(tmp_path / "stopped", GatedPixelCNN, made_by="x")
    for mine, other in zip(kept.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_patience_stops_training(tmp_path: Path) -> None:
    result = run(tmp_path, values=[5.0, 3.0, 4.0, 4.0, 4.0], steps=100, patience=3)
    assert (result.best_step, result.last_step) == (4, 10)


def test_training_lowers_the_validation_value_and_logs_it(tmp_path: Path) -> None:
    result = run(tmp_path, steps=60, validate_every=20, learning_rate=1e-2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert result.best_value == min(line["validation"] for line in lines)
    assert lines[-1]["validation"] < 0.9 * lines[0]["validation"]
    assert lines[-1]["learning_rate"] == pytest.approx(0, abs=1e-6)


def test_logged_training_values_are_means_since_the_line_before(tmp_path: Path) -> None:
    run(tmp_path / "each", steps=5, validate_every=1)
    run(tmp_path / "pair", steps=5, validate_every=2)

    def train(name: str) -> list[float]:
        text = (tmp_path / name / "log.jsonl").read_text()
        return [json.loads(line)["train"] for line in text.splitlines()]

    each = train("each")
    expected = [(each[0] + each[1]) / 2, (each[2] + each[3]) / 2, each[4]]
    assert train("pair") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight_ema", [0.0, 0.9])
def test_a_fit_repeats_itself_from_its_seed(tmp_path: Path, weight_ema: float) -> None:
    first, second = (run(tmp_path / name, weight_ema=weight_ema) for name in "ab")
    assert first == second
    contents = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert contents[0] == contents[1]


def test_averaged_weights_differ_from_raw_ones(tmp_path: Path) -> None:
    assert (
        run(tmp_path / "raw").best_value != run(tmp_path / "averaged", weight_ema=0.9).best_value
    )


def test_a_validation_that_is_never_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"validation must give a finite value .*, got nan"):
        run(tmp_path, values=[float("nan")] * 4)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    model = make()
    checkpoint.save(tmp_path, model, {"step": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def crash(*_: object) -> None:
        raise OSError("disk full")

    with torch.no_grad():
        next(model.parameters()).add_(1)
    monkeypatch.setattr(os, call, crash)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(tmp_path, model, {"step": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_rebuilds_the_model_bit_for_bit(tmp_path: Path) -> None:
    model = make().eval()
    checkpoint.save(tmp_path, model, {"step": 3})
    back, header = checkpoint.load(tmp_path, GatedPixelCNN, made_by="x")
    codes, labels = torch.randint(4, (2, 2, 2)), torch.tensor([0, 1])
    assert torch.equal(back(codes, labels), model(codes, labels))
    assert header["fingerprint"] == checkpoint.fingerprint(model) == checkpoint.fingerprint(back)
    assert json.loads((tmp_path / "config.json").read_text()) == header


def test_the_fingerprint_sees_every_weight_and_the_description() -> None:
    model = make()
    before = checkpoint.fingerprint(model)
    with torch.no_grad():
        list(model.parameters())[-1][-1] += 1e-6
    assert checkpoint.fingerprint(model) != before


def test_damaged_missing_or_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"model.safetensors is missing: run `vqk x` first"
    ):
        checkpoint.load(tmp_path, GatedPixelCNN, made_by="vqk x")
    checkpoint.save(tmp_path, make(), {})
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
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]

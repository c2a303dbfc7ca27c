"""The training loop: keeps the best step, logs, averages, splits steps, repeats itself."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pipeline.fitting import lines, prior, tokenizer, trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vqtrain import checkpoint
from vqtrain.config import FitConfig, LogConfig
from vqtrain.fit import Fit, codebooks
from vqtrain.fit.average import WeightAverage
from vqtrain.fit.codebooks import quantizers
from vqtrain.fit.collapse import collapse_warnings
from vqtrain.fit.schedule import learning_rate
from vqtrain.metrics.usage import code_usage
from vqtrain.priors import GatedPixelCNN
from vqtrain.train_tokenizer import TokenizerObjective


def fit(folder: Path, **options: Any) -> Fit:
    return trainer(folder, prior(), **options).fit()


def test_the_best_step_on_validation_is_kept_not_the_last(tmp_path: Path) -> None:
    result = fit(tmp_path / "all", values=[5.0, 3.0, 4.0, 6.0])
    assert result == Fit(best_step=4, best_value=3.0, last_step=8)
    kept, header = checkpoint.load(tmp_path / "all", GatedPixelCNN, made_by="x")
    assert header["facts"] == {"origin": "test", "step": 4, "validation": 3.0}
    # The kept weights are those of a run that has only these steps.
    fit(tmp_path / "stopped", values=[5.0, 3.0, 7.0], patience=1)
    stopped, _ = checkpoint.load(tmp_path / "stopped", GatedPixelCNN, made_by="x")
    for mine, other in zip(kept.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_patience_stops_training(tmp_path: Path) -> None:
    result = fit(tmp_path, values=[5.0, 3.0, 4.0, 4.0, 4.0], steps=100, patience=3)
    assert (result.best_step, result.last_step) == (4, 10)


def test_training_lowers_the_validation_value_and_logs_it(tmp_path: Path) -> None:
    result = fit(tmp_path, steps=60, validate_every=20, learning_rate=2e-2)
    log = [json.loads(line) for line in lines(tmp_path)]
    assert [line["step"] for line in log] == [20, 40, 60]
    assert result.best_value == min(line["validation"] for line in log)
    assert log[-1]["validation"] < 0.98 * log[0]["validation"]
    assert log[-1]["learning_rate"] == pytest.approx(0, abs=1e-4)


def test_logged_training_values_are_means_since_the_line_before(tmp_path: Path) -> None:
    fit(tmp_path / "each", steps=5, validate_every=1)
    fit(tmp_path / "pair", steps=5, validate_every=2)
    each, pair = (
        [json.loads(line)["train"] for line in lines(tmp_path / name)] for name in ("each", "pair")
    )
    expected = [(each[0] + each[1]) / 2, (each[2] + each[3]) / 2, each[4]]
    assert pair == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight_ema", [0.0, 0.9])
def test_a_fit_repeats_itself_from_its_seed(tmp_path: Path, weight_ema: float) -> None:
    first, second = (fit(tmp_path / name, weight_ema=weight_ema) for name in "ab")
    assert first == second
    contents = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert contents[0] == contents[1]


def test_a_validation_that_is_never_finite_is_an_error_and_nulls_in_the_log(
    tmp_path: Path,
) -> None:
    with pytest.raises(RuntimeError, match="validation must give a finite value at least once"):
        fit(tmp_path, values=[math.nan] * 4)
    assert json.loads(lines(tmp_path)[0])["validation"] is None


def test_a_split_step_is_the_whole_one(tmp_path: Path) -> None:
    """Gradients are averaged, and the codebook moves once, by the statistics of all parts."""
    models = []
    for accumulate in (1, 4):
        model = tokenizer(dropout=0.0, num_embeddings=2)
        folder = tmp_path / str(accumulate)
        trainer(folder, model, accumulate=accumulate, steps=12, learning_rate=0.01).fit()
        models.append(model.state_dict())
    whole, split = models
    assert whole["quantizer.clock"] == split["quantizer.clock"] == 12
    assert whole["quantizer.revived"] == split["quantizer.revived"] == 0
    for name, value in whole.items():
        if "pending" not in name:  # candidates for revival, of the last part
            torch.testing.assert_close(split[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("code_maps", [1, 3])
def test_codebooks_start_from_the_first_batch_before_the_first_step(code_maps: int) -> None:
    model = tokenizer(code_maps=code_maps)
    (codebook,) = quantizers(model)
    x = torch.randint(17, (64, 1, 4, 4), dtype=torch.uint8)
    before = codebook.codebook.clone()
    codebooks.initialise(TokenizerObjective(model), (x, torch.zeros(64, dtype=torch.int64)))
    assert codebook.initialised == 1
    assert codebook.clock == codebook.pending_steps == 0
    started = codebook.codebook.clone()
    assert not torch.equal(started, before)
    model.train()(x, torch.zeros(64, dtype=torch.int64))  # does not start again
    assert torch.equal(codebook.codebook, started)


def test_averaged_weights_follow_their_equation_and_buffers_are_the_models_own() -> None:
    model = tokenizer()
    average = WeightAverage(model, decay=0.5)
    name, parameter = next(iter(model.named_parameters()))
    expected = parameter.detach().double().clone()
    codebook = quantizers(model)[0].codebook
    for step in range(1, 20):
        with torch.no_grad():
            parameter.normal_()
            codebook.normal_()
        average.update(step)
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * parameter.detach().double()
    raw, moved = parameter.detach().clone(), codebook.clone()
    with average.applied():
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(codebook, moved)
    assert torch.equal(parameter, raw)
    assert not any("quantizer" in key for key in average.values)
    assert name in average.values


def test_what_is_kept_are_the_averaged_weights_and_training_goes_on_with_the_raw_ones(
    tmp_path: Path,
) -> None:
    """Validating at every step or at the last one alone makes no difference to the result."""
    files = []
    for every in (1, 8):
        fit(tmp_path / str(every), weight_ema=0.9, validate_every=every)
        kept, header = checkpoint.load(tmp_path / str(every), GatedPixelCNN, made_by="x")
        assert header["facts"]["step"] == 8
        files.append(kept.state_dict())
    fit(tmp_path / "raw", validate_every=8)
    raw, _ = checkpoint.load(tmp_path / "raw", GatedPixelCNN, made_by="x")
    for name, value in files[0].items():
        assert torch.equal(value, files[1][name]), name
    assert any(not torch.equal(value, raw.state_dict()[name]) for name, value in files[0].items())


@pytest.mark.parametrize(
    ("schedule", "half"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)]
)
def test_schedules_warm_up_to_the_peak_and_fall_as_named(schedule: Any, half: float) -> None:
    config = FitConfig(steps=110, warmup_steps=10, learning_rate=2.0, schedule=schedule)
    rates = [learning_rate(step, config) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == max(rates) == 2.0
    assert rates[60] == pytest.approx(2.0 * half)
    assert rates[110] == pytest.approx(2.0 if schedule == "constant" else 0.0)


def test_a_batch_that_ranks_and_parts_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size must be a multiple of accumulate 3, got 8"):
        fit(tmp_path, accumulate=3)


@pytest.fixture
def bf16() -> Iterator[Accelerator]:
    """accelerate keeps the first precision that a process asks for."""
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(True)


def test_bf16_trains_and_leaves_weights_and_codebook_in_fp32(
    tmp_path: Path, bf16: Accelerator
) -> None:
    seen = set()
    model = tokenizer()
    model.encoder.register_forward_hook(
        lambda module, x, out: seen.add((module.training, out.dtype))
    )
    trainer(tmp_path, model, accelerator=bf16).fit()
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16), (False, torch.float32)}
    floats = {value.dtype for value in model.state_dict().values() if value.is_floating_point()}
    assert floats == {torch.float32}
    assert len(lines(tmp_path)) == 4


def test_tensorboard_gets_every_number_of_the_log(tmp_path: Path) -> None:
    fit(tmp_path, log=LogConfig(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    log = [json.loads(line) for line in lines(tmp_path)]
    for name in ("train", "validation", "learning_rate"):
        written = {event.step: event.value for event in events.Scalars(name)}
        assert written == pytest.approx({line["step"]: line[name] for line in log}, rel=1e-6)


def test_wandb_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(tmp_path, log=LogConfig(wandb=True))
    (record,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert record.stat().st_size > 0
    assert (tmp_path / "wandb" / "id").read_text() in record.name


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_service_that_is_not_installed_names_its_extra_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"pip install 'vqkernels\[{name}\]'"):
        fit(tmp_path / "run", log=LogConfig(**{name: True}))
    assert not (tmp_path / "run").exists()


def test_the_alarm_sounds_for_a_collapsed_codebook_alone() -> None:
    even = code_usage(torch.arange(64).repeat(10), 64)
    one = code_usage(torch.cat((torch.zeros(10**4), torch.arange(64))), 64)  # all are used
    third = code_usage(torch.arange(20).repeat(100), 64)
    few_items = code_usage(torch.arange(16), 64)  # as many as 16 codes can use
    assert collapse_warnings([even, few_items]) == ()
    assert "level 0: perplexity 1.1 of 64" in collapse_warnings([one])[0]
    assert "level 1" in collapse_warnings([even, third])[0]
    assert "usage 31% of a possible 100%" in collapse_warnings([even, third])[0]

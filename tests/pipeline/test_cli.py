"""The command `vqk`: the whole chain in a process of its own, then its stages one by one."""

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from vqtrain import checkpoint
from vqtrain.cli import COMMANDS, main
from vqtrain.pipeline import GenerativePipeline

QUICK = [
    *("--threads", "1", "--data.warped_copies", "1", "--sample.per_class", "15"),
    *("--tokenizer.steps", "20", "--prior.steps", "20"),
]
ANEW = ("--resume", "never")
KEYS = {
    *("total_bpd", "recon_bpd", "prior_bpd", "unigram_bpd", "uniform_bpd", "ladder_class_bpd"),
    *("K", "usage", "usage_ceiling", "perplexity", "label_agreement", "cas", "seconds"),
}
PICTURES = [
    *("samples", "reconstructions", "completions", "interpolations", "usage-0", "neighbours"),
    *("curve-tokenizer", "curve-prior-0"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by `vqk run digits`; tests that write take a copy."""
    run = tmp_path_factory.mktemp("runs") / "quick"
    command = [sys.executable, "-m", "vqtrain", "run", "digits", "--out", str(run), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    for stage in ("train tokenizer", "extract", "train prior 0", "sample", "eval", "report"):
        assert re.search(rf"\[{stage}\] .*\(\d+\.\d s\)", done.stdout, re.DOTALL), done.stdout
    return run


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def metrics(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "metrics.json").read_text())


def test_a_run_leaves_every_artifact(finished: Path) -> None:
    expected = {
        *("config.yaml", "env.json", "stages.json", "metrics.json", "report.html"),
        *(f"{name}.png" for name in PICTURES),
        *(f"codes/{name}-00000.safetensors" for name in ("train", "validation", "test")),
        *(f"{m}/{f}" for m in ("tokenizer", "prior-0") for f in ("config.json", "log.jsonl")),
        *(f"{m}/{f}.safetensors" for m in ("tokenizer", "prior-0") for f in ("model", "state")),
        *("codes/manifest.json", "samples/samples.safetensors", "samples/samples.json"),
    }
    found = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert found == expected
    for name in PICTURES:
        assert (finished / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_called_again_makes_nothing_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written() -> dict[str, int]:
        files = (p for p in copy.rglob("*") if p.is_file() and p.name != "config.yaml")
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = written()
    assert main(["run", str(copy)]) == 0
    assert written() == before
    assert capsys.readouterr().out.count("before") == 6


def test_metrics_have_the_promised_keys_and_add_up(metrics: dict[str, Any]) -> None:
    assert set(metrics) >= KEYS
    assert metrics["total_bpd"] == pytest.approx(metrics["recon_bpd"] + metrics["prior_bpd"])
    assert metrics["uniform_bpd"] == pytest.approx(16 * math.log2(metrics["K"]) / 64)
    assert 0 < metrics["usage"] <= metrics["usage_ceiling"] <= 1
    assert 1 <= metrics["perplexity"] <= metrics["K"]
    assert sum(metrics["code_counts"]) == metrics["test_codes"] == 360 * 16
    assert metrics["seconds"] > 1
    assert metrics["threads"] == 1
    assert metrics["samples"] == 150


def test_the_ladder_of_the_digits_is_the_known_one(metrics: dict[str, Any]) -> None:
    assert metrics["ladder"] == {
        "uniform": pytest.approx(math.log2(17)),
        "independent": pytest.approx(2.43, abs=0.03),
        "class_independent": pytest.approx(2.20, abs=0.03),
        "autoregressive": pytest.approx(2.03, abs=0.03),
        "class_autoregressive": pytest.approx(1.96, abs=0.03),
    }
    assert metrics["ladder_class_bpd"] == metrics["ladder"]["class_independent"]


def test_the_report_is_one_page_that_needs_no_network(
    finished: Path, metrics: dict[str, Any]
) -> None:
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(PICTURES)
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", without_pictures)
    assert f"{metrics['total_bpd']:.3f}" in without_pictures
    assert "warped_copies: 1" in without_pictures


def test_the_config_is_kept_whole_and_can_be_run_again(finished: Path, copy: Path) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    assert config["tokenizer"]["steps"] == config["prior"]["steps"] == 20
    assert main(["train", "tokenizer", str(copy), *ANEW]) == 0
    for name in ("config.yaml", "tokenizer/model.safetensors"):
        assert (copy / name).read_bytes() == (finished / name).read_bytes(), name


def test_samples_are_decided_by_the_seed(finished: Path, copy: Path) -> None:
    path = Path("samples", "samples.safetensors")
    assert main(["sample", str(copy)]) == 0
    assert (copy / path).read_bytes() == (finished / path).read_bytes()
    tensors = load_file(copy / path)
    assert tensors["labels"].bincount().tolist() == [15] * 10
    assert tensors["drawn"].max() <= 16
    assert ((tensors["means"] >= 0) & (tensors["means"] <= 16)).all()


def test_a_finished_run_is_a_pipeline_and_so_is_what_is_exported(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "digits-model"
    assert main(["export", str(finished), "--to", str(to)]) == 0
    assert {str(p.relative_to(to)) for p in to.rglob("*") if p.is_file()} == {
        *("pipeline.json", "config.yaml", "README.md"),
        *(f"{m}/{f}" for m in ("tokenizer", "prior-0") for f in checkpoint.FILES),
    }
    drawn = load_file(finished / "samples" / "samples.safetensors")
    for folder in (finished, to):
        pipeline = GenerativePipeline.from_pretrained(folder)
        again = pipeline.sample(drawn["labels"], torch.Generator().manual_seed(0))
        assert torch.equal(again.codes[0], drawn["codes_0"])
        assert pipeline.class_names == tuple("0123456789")
    assert main(["export", str(finished), "--to", str(to)]) == 1
    assert "--to must be a new or empty folder" in capsys.readouterr().err
    assert main(["export", "runs/nothing", "--to", str(tmp_path / "other")]) == 1
    assert "run must be a run folder" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_snippet_of_an_exported_readme_runs(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["export", str(finished), "--to", str(tmp_path / "model")])
    (snippet,) = re.findall(
        r"```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["samples"].means.shape == (10, 1, 8, 8)


def test_a_new_tokenizer_makes_old_codes_prior_and_samples_unusable(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "tokenizer", str(copy), "--tokenizer.steps", "3", *ANEW]) == 0
    assert main(["train", "prior", str(copy)]) == 1
    assert "must hold codes of tokenizer" in capsys.readouterr().err
    assert main(["sample", str(copy)]) == 1
    assert "must model codes of tokenizer" in capsys.readouterr().err
    assert main(["extract", str(copy)]) == 0
    assert main(["train", "prior", str(copy), "--prior.steps", "3", *ANEW]) == 0
    assert main(["eval", str(copy)]) == 1
    assert "must hold whole samples of the priors in this run" in capsys.readouterr().err


def test_data_other_than_the_tokenizers_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", str(copy), "--data.split", "ordered"]) == 1
    assert "data and seed must be those of the tokenizer" in capsys.readouterr().err


def test_a_stage_without_its_input_names_the_command_that_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", "digits", "--out", str(tmp_path / "new")]) == 1
    assert "run `vqk train tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tokenizer.stepz", "20"], "--tokenizer.stepz is not a field"),
        (["--tokenizer.steps", "many"], "tokenizer.steps"),
        (["--data.split", "random"], "data.split"),
    ],
)
def test_an_unknown_or_wrong_argument_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["run", "digits", *arguments])
    assert error.value.code == 2
    assert complaint in capsys.readouterr().err


def test_an_unknown_key_in_a_config_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tokenizer:\n  vqvae:\n    hiden: 8\n")
    with pytest.raises(SystemExit) as error:
        main(["run", str(path)])
    assert error.value.code == 2
    assert "vqvae.hiden" in capsys.readouterr().err


def test_an_unknown_source_or_command_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "digitz"])
    complaint = capsys.readouterr().err
    assert "source must be a preset (cifar-paper, digits," in complaint
    assert "a YAML file or a run folder, got 'digitz': did you mean 'digits'?" in complaint
    assert main(["trian", "tokenizer"]) == 2
    assert "command must be one of init, data, run, train tokenizer" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(words in text for words in COMMANDS)


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--tokenizer.steps", "0", "steps must be at least 1, got 0"),
        ("--prior.weight_ema", "1", "weight_ema must be in [0, 1), got 1.0"),
        ("--sample.per_class", "1", "per_class must be at least 2, got 1"),
        ("--sample.batch_size", "0", "sample.batch_size must be at least 1, got 0"),
        ("--sample.top_p", "0", "top_p must be in (0, 1], got 0.0"),
        ("--sample.guidance", "2", "guidance must be 1 unless prior.pixelcnn.label_dropout is"),
        ("--eval.batch_size", "0", "eval.batch_size must be at least 1, got 0"),
        ("--threads", "-1", "threads must be at least 0, got -1"),
    ],
)
def test_a_value_out_of_range_is_refused(
    option: str, value: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["extract", "digits", "--out", str(tmp_path), option, value]) == 1
    assert complaint in capsys.readouterr().err

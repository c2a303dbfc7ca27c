"""The sample stage: any model, level by level, and completions that keep what was told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtrain import checkpoint
from vqtrain.completions import WAYS
from vqtrain.config import RunConfig
from vqtrain.config.sections import PriorConfig, SampleConfig, TokenizerConfig
from vqtrain.data import Dataset, load_dataset, provenance
from vqtrain.models import Tokenizer, VAEConfig, VQVAE2Config, VQVAEConfig
from vqtrain.priors import MaskedConfig, PixelCNNConfig
from vqtrain.priors.prior import CodeSpace
from vqtrain.sample import load_samples, sample
from vqtrain.train_prior import folder, make_prior
from vqtrain.train_tokenizer import load_tokenizer, make_tokenizer

SIZES: dict[str, Any] = {"hidden": 8, "residual_hidden": 4, "residual_blocks": 1}


def config_of(
    tokenizer: str = "vqvae",
    prior: str = "pixelcnn",
    likelihood: str = "categorical",
    **fields: Any,
) -> RunConfig:
    return RunConfig(
        threads=1,
        tokenizer=TokenizerConfig(
            kind=tokenizer,
            vqvae=VQVAEConfig(**SIZES, likelihood=likelihood),
            vqvae2=VQVAE2Config(**SIZES),
            vae=VAEConfig(**SIZES),
        ),
        prior=PriorConfig(
            kind=prior,
            pixelcnn=PixelCNNConfig(width=8, layers=2),
            masked=MaskedConfig(width=8, layers=1, heads=2, passes=3),
        ),
        sample=SampleConfig(per_class=2, shown_per_class=2, completions=3, **fields),
    )


def untrained(config: RunConfig, run: Path) -> Dataset:
    """A run folder with models of random weights where trained ones would be."""
    torch.manual_seed(0)
    dataset = load_dataset(config.data, config.seed)
    facts = {"data": provenance(config.data, config.seed)}
    tokenizer = make_tokenizer(config, dataset.signal)
    if not isinstance(tokenizer, Tokenizer):
        checkpoint.save(run / "tokenizer", tokenizer, facts)
        return dataset
    tokenizer.train()(dataset.test.x, dataset.test.labels)  # k-means fills the codebooks
    tokenizer.eval()
    checkpoint.save(run / "tokenizer", tokenizer, facts)
    levels = list(zip(tokenizer.codebook_sizes, tokenizer.code_grids, strict=True))
    for level, (k, grid) in enumerate(levels):
        space = CodeSpace(k, grid, dataset.signal.num_labels, tuple(levels[:level]))
        prior = make_prior(config.prior_of(level), space)
        with torch.no_grad():  # as different from the start as after training
            for weight in prior.parameters():
                weight += 0.3 * torch.randn(weight.shape)
        facts = {"tokenizer": checkpoint.fingerprint(tokenizer), "level": level}
        checkpoint.save(folder(run, level), prior, facts)
    return dataset


def sampled(config: RunConfig, run: Path) -> tuple[dict[str, Tensor], Dataset]:
    dataset = untrained(config, run)
    sample(config, run)
    levels = len(list(run.glob("prior-*")))
    priors = [checkpoint.fingerprint(loaded(config, run, level)) for level in range(levels)]
    return load_samples(run, priors), dataset


def loaded(config: RunConfig, run: Path, level: int) -> nn.Module:
    kind = type(make_prior(config.prior_of(level), CodeSpace(2, (2, 2))))
    return checkpoint.load(folder(run, level), kind, made_by="")[0]


@torch.no_grad()
@pytest.mark.parametrize("prior", ["pixelcnn", "masked"])
def test_every_level_is_drawn_and_decoded_together(tmp_path: Path, prior: str) -> None:
    config = config_of("vqvae2", prior)
    tensors, dataset = sampled(config, tmp_path)
    tokenizer, _ = load_tokenizer(config, tmp_path)
    codes = tuple(tensors[f"codes_{level}"] for level in range(len(tokenizer.code_grids)))
    assert len(codes) == 2
    assert [tuple(level.shape[1:]) for level in codes] == list(tokenizer.code_grids)
    assert tensors["labels"].tolist() == [label for label in range(10) for _ in range(2)]
    means = tokenizer.likelihood.mean(tokenizer.decode(codes, tensors["labels"]))
    assert torch.equal(means, tensors["means"])
    assert tensors["drawn"].dtype == torch.uint8
    assert int(tensors["drawn"].max()) < dataset.signal.levels
    for name in ("samples", "completions"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_batches_are_drawn_one_after_the_other(tmp_path: Path) -> None:
    config = config_of(batch_size=8)
    tensors, _ = sampled(config, tmp_path)
    assert len(tensors["codes_0"]) == len(tensors["means"]) == 20
    first, second = tensors["codes_0"][:8], tensors["codes_0"][8:16]
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("prior", "halves"), [("pixelcnn", ["first"]), ("masked", ["first", "left"])]
)
def test_completions_keep_what_was_told_and_draw_the_rest(
    tmp_path: Path, prior: str, halves: list[str]
) -> None:
    tensors, dataset = sampled(config_of("identity", prior), tmp_path)
    assert torch.equal(tensors["held_out"], dataset.test.x[:3])
    assert [key for key in sorted(tensors) if key.startswith("told")] == [
        f"told_{half}" for half in halves
    ]
    for half in halves:
        told, completed = tensors[f"told_{half}"], tensors[f"completed_{half}"]
        assert int(told.sum()) == 32
        assert bool(told[0, 0])
        assert not bool(told[-1, -1])
        assert completed.shape == (3, WAYS, 1, 8, 8)
        original = tensors["held_out"][:, None].expand_as(completed)
        assert torch.equal(completed[..., told], original[..., told].float())
        assert not torch.equal(completed[:, 0], completed[:, 1])  # another way to go on
        assert not torch.equal(completed, original.float())


def test_a_squared_error_has_means_but_nothing_to_draw(tmp_path: Path) -> None:
    tensors, _ = sampled(config_of(likelihood="mse"), tmp_path)
    assert "drawn" not in tensors
    assert (tmp_path / "samples.png").is_file()


def test_a_vae_draws_latents_and_has_no_codes(tmp_path: Path) -> None:
    tensors, _ = sampled(config_of("vae"), tmp_path)
    assert sorted(tensors) == ["drawn", "labels", "means"]
    assert len(tensors["means"].unique(dim=0)) == 20

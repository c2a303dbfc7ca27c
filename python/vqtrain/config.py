"""One typed configuration for a run, read from a YAML preset and overridden on the command line.

Every stage accepts the same arguments: a SOURCE (the name of a preset, a YAML file, or the folder
of an earlier run), `--out RUN`, and any field as `--section.field value`. Unknown keys are
refused.
"""

import argparse
import dataclasses
import glob
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import ArgumentParser

from vqtrain.files import write_atomic
from vqtrain.models.pixelcnn import PixelCNNConfig
from vqtrain.models.vqvae import VQVAEConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images.

    Args:
        name: data set.
        split: committed index file, see `vqtrain.data.digits`.
        warped_copies: flagged warped copies of each training image.
    """

    name: Literal["digits"] = "digits"
    split: Literal["stratified", "ordered"] = "stratified"
    warped_copies: int = 12


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained; the same for tokenizer and prior.

    Args:
        steps: optimiser steps.
        batch_size: images in a step.
        clean_share: share of a batch that is not warped.
        learning_rate: peak of a cosine schedule that ends at 0.
        warmup_steps: steps of linear warm-up before it.
        weight_decay: AdamW's decoupled decay.
        clip_norm: largest gradient norm.
        weight_ema: decay of the averaged weights that are validated and kept; 0 keeps the raw
            weights.
        validate_every: steps between validations; the best one is kept.
        patience: validations without improvement after which training stops; 0 never stops early.
    """

    steps: int = 1000
    batch_size: int = 128
    clean_share: float = 0.5
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    weight_ema: float = 0.0
    validate_every: int = 50
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.weight_ema < 1:
            raise ValueError(f"weight_ema must be in [0, 1), got {self.weight_ema}")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(FitConfig):
    """Training of the VQ-VAE, and its size.

    Args:
        model: size of the VQ-VAE.
    """

    model: VQVAEConfig = field(default_factory=VQVAEConfig)


@dataclass(frozen=True, kw_only=True)
class PriorConfig(FitConfig):
    """Training of the gated PixelCNN over codes, and its size.

    Args:
        model: size of the PixelCNN.
    """

    model: PixelCNNConfig = field(default_factory=PixelCNNConfig)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Samples drawn from prior and decoder.

    Args:
        per_class: samples of each class; all are kept and evaluated.
        shown_per_class: how many of them, the first ones, are on the sample sheet.
        temperature: divides the prior's logits; 1 samples the model that the ledger measures.
    """

    per_class: int = 140
    shown_per_class: int = 12
    temperature: float = 1.0

    def __post_init__(self) -> None:
        # Two of a class are the least that the classifier of `vqk eval` can be trained on.
        if self.per_class < 2:
            raise ValueError(f"per_class must be at least 2, got {self.per_class}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run: data, tokenizer, prior and samples.

    Args:
        seed: decides everything random; each stage starts from it afresh.
        threads: CPU threads; 0 takes every core this process may use. Never inherited from the
            shell.
        device: auto takes a GPU when there is one.
        data: the images.
        tokenizer: first model.
        prior: second model.
        sample: what is drawn from both.
    """

    seed: int = 0
    threads: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


def parse(argv: list[str], command: str) -> tuple[RunConfig, Path]:
    """Reads SOURCE, `--out` and overrides; on help or a usage error exits as argparse does.

    Args:
        argv: arguments after the command.
        command: words of the command, for the help text.

    Returns:
        The configuration and the run folder.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("source", nargs="?")
    source = first.parse_known_args(argv)[0].source
    parser = ArgumentParser(
        prog=f"vqk {command}", usage="%(prog)s SOURCE [--out RUN] [--section.field VALUE ...]"
    )
    parser.add_argument("source", help="preset name, YAML file or run folder")
    parser.add_argument("--out", help="run folder; default runs/NAME, or SOURCE if it is a folder")
    parser.add_class_arguments(RunConfig, None)
    if source is not None:
        try:
            path, default_out = _locate(source)
        except ValueError as error:
            parser.error(str(error))
        parser.default_config_files = [glob.escape(str(path))]
    values = parser.instantiate(parser.parse_args(argv))
    fields = {f.name: getattr(values, f.name) for f in dataclasses.fields(RunConfig)}
    return RunConfig(**fields), Path(values.out) if values.out else default_out


def save(config: RunConfig, run: Path) -> None:
    """Writes every resolved value to `config.yaml` in the run folder."""
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    write_atomic(run / "config.yaml", text.encode())


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("vqtrain") / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def _locate(source: str) -> tuple[Path, Path]:
    """The YAML file that SOURCE means, and the run folder that goes with it."""
    if source in presets():
        return Path(str(resources.files("vqtrain") / "presets" / f"{source}.yaml")), Path(
            "runs", source
        )
    path = Path(source)
    if (path / "config.yaml").is_file():
        return path / "config.yaml", path
    if path.is_file():
        return path, Path("runs", path.stem)
    raise ValueError(
        f"source must be a preset ({', '.join(presets())}), a YAML file or a run folder, "
        f"got {source!r}"
    )

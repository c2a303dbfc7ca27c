"""Stage 1: train the tokenizer on signals.

    vqk train tokenizer digits --out runs/try --tokenizer.steps 200

Reads the data set. Writes RUN/config.yaml and RUN/tokenizer: the step that is best on validation
(model.safetensors, config.json), the last checkpoint (state.safetensors) and log.jsonl. Killed at
any moment, it goes on from the last checkpoint when it is called again. On several processes:

    torchrun --nproc-per-node 2 -m vqtrain train tokenizer digits --out runs/try
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vqtrain import checkpoint
from vqtrain.config import RESUME, RunConfig, parse, save, take_options
from vqtrain.data import Split, load_dataset, provenance
from vqtrain.fit import (
    Objective,
    Order,
    Trainer,
    Validation,
    clear,
    collapse_warnings,
    finished,
    usage_scalars,
)
from vqtrain.metrics.ledger import BITS
from vqtrain.metrics.usage import code_usage
from vqtrain.models import TOKENIZERS, VAE, Identity, Signal, SignalModel, Tokenizer
from vqtrain.runtime import finished_before, stage, start

Model = TypeVar("Model", bound=SignalModel)


class TokenizerObjective(Objective):
    """The model's own loss, and its bits of reconstruction where it has a likelihood."""

    model: SignalModel

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.model(x, labels)
        scalars = dict(output.scalars)
        if output.nll is not None:
            scalars["train"] = output.nll.mean() * (BITS / self.model.signal.dims)
        return output.loss, scalars


def train_tokenizer(config: RunConfig, run: Path, resume: str = "auto") -> None:
    """Trains and keeps the best step on validation.

    Args:
        config: names data, model and training.
        run: run folder.
        resume: `auto`, `never` or a checkpoint; see `vqtrain.fit.Trainer.fit`.
    """
    accelerator = start(config)
    folder, settings = run / "tokenizer", training_settings(config)
    done = finished(folder, settings, resume)
    if done is not None:
        if accelerator.is_main_process:
            save(config, run)
        finished_before("train tokenizer", run, done.summary(_unit(config)), done.seconds_before)
        return
    with stage("train tokenizer", run) as note:
        dataset = load_dataset(config.data, config.seed)
        model = make_tokenizer(config, dataset.signal)
        facts = {"data": provenance(config.data, config.seed)}
        if not any(parameter.requires_grad for parameter in model.parameters()):
            if accelerator.is_main_process:
                save(config, run)
                clear(folder)
                checkpoint.save(folder, model, {**facts, "step": 0})
            accelerator.wait_for_everyone()
            note["result"] = "nothing to train"
            return
        section, train = config.tokenizer, dataset.train

        def batch(rows: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
            items = train.batch(rows, draws).to(accelerator.device)
            return items.x, items.labels

        trainer = Trainer(
            objective=TokenizerObjective(model),
            config=section,
            accelerator=accelerator,
            folder=folder,
            order=Order(
                train.size, train.draws, section.batch_size, section.clean_share, config.seed
            ),
            batch=batch,
            validate=lambda: validate(
                model, dataset.validation.to(accelerator.device), config.eval.batch_size
            ),
            settings=settings,
            facts=facts,
            log=config.log,
            checkpoints=config.checkpoint,
        )
        if accelerator.is_main_process:
            save(config, run)
        result = trainer.fit(resume)
        note["result"] = result.summary(_unit(config))
        note["seconds_before"] = result.seconds_before


def training_settings(config: RunConfig) -> dict[str, Any]:
    """All that decides what is trained, under the names that the configuration gives it."""
    section = asdict(config.tokenizer)
    kinds = {kind: section.pop(kind, None) for kind in (*TOKENIZERS, "vae")}
    return {
        "seed": config.seed,
        "precision": config.precision,
        "data": provenance(config.data, config.seed),
        "tokenizer": {**section, config.tokenizer.kind: kinds[config.tokenizer.kind]},
    }


def make_tokenizer(config: RunConfig, signal: Signal) -> SignalModel:
    """The untrained model that the configuration names: a tokenizer, or the VAE."""
    kind = config.tokenizer.kind
    if kind == "identity":
        return Identity(signal)
    section = getattr(config.tokenizer, kind)
    return VAE(section, signal) if kind == "vae" else TOKENIZERS[kind](section, signal)


def _unit(config: RunConfig) -> str:
    """What `validate` measures in."""
    section = getattr(config.tokenizer, config.tokenizer.kind, None)
    if getattr(section, "likelihood", None) == "mse":
        return "squared error per dimension"
    return "bits/dim" if config.tokenizer.kind == "vae" else "bits/dim of reconstruction"


def validate(model: SignalModel, held_out: Split, batch_size: int) -> Validation:
    """Bits per dimension of held-out items, and how their codes are used.

    The bits are those of the reconstruction, for the VAE with its latents. Without a likelihood
    the value is a squared error per dimension.
    """
    costs, codes = [], []
    for rows in torch.arange(len(held_out.x), device=held_out.x.device).split(batch_size):
        x, labels, _ = held_out.take(rows)
        costs.append(model.cost(x, labels))
        if isinstance(model, Tokenizer):
            codes.append(model.encode(x))
    unit = BITS if model.likelihood.has_likelihood else 1.0
    value = torch.cat(costs).mean().item() * unit / model.signal.dims
    if not isinstance(model, Tokenizer):
        return Validation(value)
    usages = [
        code_usage(torch.cat(level), size)
        for level, size in zip(zip(*codes, strict=True), model.codebook_sizes, strict=True)
    ]
    return Validation(value, usage_scalars(usages), collapse_warnings(usages))


def load_tokenizer(config: RunConfig, run: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """Loads the run's tokenizer, for the stages after this one.

    Raises:
        FileNotFoundError: if it has not been trained.
        ValueError: if it was trained on other data than `config` names (a test item of one split
            may be a training item of another).
    """
    return _load(config, run, TOKENIZERS[config.tokenizer.kind])


def load_vae(config: RunConfig, run: Path) -> tuple[VAE, dict[str, Any]]:
    """Loads the run's VAE, which stands where a tokenizer would; see `load_tokenizer`."""
    return _load(config, run, VAE)


def _load(config: RunConfig, run: Path, kind: type[Model]) -> tuple[Model, dict[str, Any]]:
    model, header = checkpoint.load(run / "tokenizer", kind, made_by=f"vqk train tokenizer {run}")
    asked = provenance(config.data, config.seed)
    if header["facts"]["data"] != asked:
        raise ValueError(
            f"data and seed must be those of the tokenizer, {header['facts']['data']}, got {asked}"
        )
    return model, header


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    options, rest = take_options(sys.argv[1:] if argv is None else argv, RESUME)
    train_tokenizer(*parse(rest, "train tokenizer"), options["resume"])


if __name__ == "__main__":
    main()

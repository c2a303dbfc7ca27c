"""Stage 1: train the tokenizer, a VQ-VAE, on images.

    vqk train tokenizer digits --out runs/try --tokenizer.steps 200

Reads the data set. Writes RUN/config.yaml and
RUN/tokenizer/{model.safetensors,config.json,log.jsonl}. The step with the fewest
reconstruction bits on the validation images is kept.
"""

import sys
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vqtrain import checkpoint
from vqtrain.config import RunConfig, parse, save
from vqtrain.data import Dataset, load_dataset, provenance
from vqtrain.fit import fit
from vqtrain.fit.order import Order
from vqtrain.metrics.ledger import BITS
from vqtrain.models import TOKENIZERS, VAE
from vqtrain.models.tokenizer import Signal, SignalModel, Tokenizer
from vqtrain.runtime import stage, start

Model = TypeVar("Model", bound=SignalModel)


def train_tokenizer(config: RunConfig, run: Path) -> None:
    """Trains and keeps the best step on validation."""
    accelerator = start(config)
    with stage("train tokenizer", run) as note:
        save(config, run)
        dataset = load_dataset(config.data, config.seed)
        model = make_tokenizer(config, dataset.signal)
        facts = {"data": provenance(config.data, config.seed)}
        result = fit(
            model,
            config.tokenizer,
            accelerator,
            run / "tokenizer",
            step_loss=_step_loss(config, dataset, accelerator.device),
            validate=_validate(dataset, accelerator.device),
            facts=facts,
        )
        note["result"] = result.summary("bits/dim of reconstruction")


def make_tokenizer(config: RunConfig, signal: Signal) -> Tokenizer:
    """The untrained tokenizer that the configuration names."""
    kind = config.tokenizer.kind
    return TOKENIZERS[kind](getattr(config.tokenizer, kind), signal)


def _step_loss(config: RunConfig, dataset: Dataset, device: torch.device) -> Any:
    train = dataset.train
    order = Order(
        train.size,
        train.draws,
        config.tokenizer.batch_size,
        config.tokenizer.clean_share,
        config.seed,
    )

    def step_loss(model: Tokenizer, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = train.batch(*order.at(step)).to(device)
        output = model(batch.x, batch.labels)
        scalars = dict(output.scalars)
        if output.nll is not None:
            scalars["train"] = output.nll.mean() * (BITS / dataset.signal.dims)
        return output.loss, scalars

    return step_loss


def _validate(dataset: Dataset, device: torch.device) -> Any:
    validation = dataset.validation.to(device)

    def validate(model: Tokenizer) -> float:
        nll = model.nll(validation.x, validation.labels)
        return nll.mean().item() * BITS / dataset.signal.dims

    return validate


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
    train_tokenizer(*parse(sys.argv[1:] if argv is None else argv, "train tokenizer"))


if __name__ == "__main__":
    main()

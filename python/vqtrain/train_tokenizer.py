"""Stage 1: train the tokenizer, a VQ-VAE, on images.

    vqk train tokenizer digits --out runs/try --tokenizer.steps 200

Reads the data set. Writes RUN/config.yaml and
RUN/tokenizer/{model.safetensors,checkpoint.json,log.jsonl}. The step with the fewest
reconstruction bits on the validation images is kept.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtrain import checkpoint
from vqtrain.config import RunConfig, parse, save
from vqtrain.data import ImageDataset, batches, load_digits_dataset
from vqtrain.fit import fit
from vqtrain.metrics.ledger import BITS
from vqtrain.models import VQVAE
from vqtrain.runtime import stage, start


def train_tokenizer(config: RunConfig, run: Path) -> None:
    """Trains and keeps the best step on validation."""
    accelerator = start(config)
    device = accelerator.device
    with stage("train tokenizer", run) as note:
        save(config, run)
        dataset = load_dataset(config)
        train, validation = dataset.train.to(device), dataset.validation.to(device)
        dims = train.images[0].numel()
        model = VQVAE(
            config.tokenizer.model,
            channels=train.images.shape[1],
            levels=dataset.levels,
            num_labels=dataset.num_labels,
        )
        order = batches(
            dataset.train.labels < len(dataset.class_names),
            config.tokenizer.batch_size,
            config.tokenizer.clean_share,
            torch.Generator().manual_seed(config.seed),
        )

        def step_loss(model: VQVAE, _: int) -> tuple[Tensor, dict[str, Tensor]]:
            index = next(order).to(device)
            output = model(train.images[index], train.labels[index])
            bits = output.nll.mean() * (BITS / dims)
            return output.loss, {"train": bits, "perplexity": output.perplexity}

        def validate(model: VQVAE) -> float:
            return model.nll(validation.images, validation.labels).mean().item() * BITS / dims

        result = fit(
            model,
            config.tokenizer,
            accelerator,
            run / "tokenizer",
            step_loss=step_loss,
            validate=validate,
            facts={"data": provenance(config)},
        )
        note["result"] = result.summary("bits/dim of reconstruction")


def load_dataset(config: RunConfig) -> ImageDataset:
    """The images of a run; every stage of the run sees the same ones."""
    return load_digits_dataset(config.data.split, config.data.warped_copies, config.seed)


def provenance(config: RunConfig) -> dict[str, Any]:
    """What a model was trained on, kept with it."""
    return {**asdict(config.data), "seed": config.seed}


def load_tokenizer(config: RunConfig, run: Path) -> tuple[VQVAE, dict[str, Any]]:
    """Loads the run's tokenizer, for the stages after this one.

    Raises:
        FileNotFoundError: if it has not been trained.
        ValueError: if it was trained on other data than `config` names (a test image of one split
            may be a training image of another).
    """
    model, header = checkpoint.load(run / "tokenizer", VQVAE, made_by=f"vqk train tokenizer {run}")
    if header["facts"]["data"] != provenance(config):
        raise ValueError(
            f"data and seed must be those of the tokenizer, {header['facts']['data']}, "
            f"got {provenance(config)}"
        )
    return model, header


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    train_tokenizer(*parse(sys.argv[1:] if argv is None else argv, "train tokenizer"))


if __name__ == "__main__":
    main()

"""Stage 3: train the prior, a gated PixelCNN, on codes.

    vqk train prior runs/digits --prior.steps 200

Reads RUN/codes. Writes RUN/prior/{model.safetensors,checkpoint.json,log.jsonl}. The step with the
fewest bits on the validation codes is kept; with a thousand grids the prior overfits within
seconds.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtrain import checkpoint, codes
from vqtrain.config import RunConfig, parse, save
from vqtrain.data import batches
from vqtrain.fit import fit
from vqtrain.metrics.ledger import BITS
from vqtrain.models import GatedPixelCNN
from vqtrain.runtime import stage, start
from vqtrain.train_tokenizer import load_tokenizer


def train_prior(config: RunConfig, run: Path) -> None:
    """Trains and keeps the best step on validation."""
    accelerator = start(config)
    device = accelerator.device
    with stage("train prior", run) as note:
        _, header = load_tokenizer(config, run)
        store = codes.read(run / "codes", header["fingerprint"])
        save(config, run)
        train, validation = store.splits["train"].to(device), store.splits["validation"].to(device)
        per_code = BITS / train.codes[0].numel()
        model = GatedPixelCNN(
            config.prior.model, num_embeddings=store.num_embeddings, num_labels=store.num_labels
        )
        order = batches(
            store.splits["train"].labels < len(store.class_names),
            config.prior.batch_size,
            config.prior.clean_share,
            torch.Generator().manual_seed(config.seed),
        )

        def step_loss(model: GatedPixelCNN, _: int) -> tuple[Tensor, dict[str, Tensor]]:
            index = next(order).to(device)
            loss = (
                model.nll(train.codes[index], train.labels[index]).mean() / train.codes[0].numel()
            )
            return loss, {"train": loss * BITS}

        def validate(model: GatedPixelCNN) -> float:
            return model.nll(validation.codes, validation.labels).mean().item() * per_code

        result = fit(
            model,
            config.prior,
            accelerator,
            run / "prior",
            step_loss=step_loss,
            validate=validate,
            facts={"tokenizer": header["fingerprint"], "grid": list(store.grid)},
        )
        note["result"] = result.summary("bits/code")


def load_prior(run: Path, tokenizer: str) -> tuple[GatedPixelCNN, dict[str, Any]]:
    """Loads the run's prior, for the stages after this one.

    Args:
        run: run folder.
        tokenizer: fingerprint of the tokenizer whose codes it must model.

    Raises:
        FileNotFoundError: if it has not been trained.
        ValueError: if it models the codes of another tokenizer.
    """
    model, header = checkpoint.load(run / "prior", GatedPixelCNN, made_by=f"vqk train prior {run}")
    if header["facts"]["tokenizer"] != tokenizer:
        raise ValueError(
            f"{run / 'prior'} must model codes of tokenizer {tokenizer[:12]}, got "
            f"{header['facts']['tokenizer'][:12]}: run `vqk train prior {run}` again"
        )
    return model, header


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    train_prior(*parse(sys.argv[1:] if argv is None else argv, "train prior"))


if __name__ == "__main__":
    main()

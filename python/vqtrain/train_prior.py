"""Stage 3: train the priors, one for each level of codes.

    vqk train prior runs/digits --prior.steps 200

Reads RUN/codes. Writes RUN/prior-0 (the top level), RUN/prior-1 and so on, each with
model.safetensors, config.json and log.jsonl. The step with the fewest bits on the validation
codes is kept; with a thousand grids a prior overfits within seconds.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtrain import checkpoint, codes
from vqtrain.codes import CodeStore
from vqtrain.config import RunConfig, parse, save
from vqtrain.config.sections import PriorConfig
from vqtrain.fit import fit
from vqtrain.fit.order import Order
from vqtrain.metrics.ledger import BITS
from vqtrain.priors import PRIORS
from vqtrain.priors.prior import CodeSpace, Prior
from vqtrain.runtime import stage, start
from vqtrain.train_tokenizer import load_tokenizer


def train_prior(config: RunConfig, run: Path) -> None:
    """Trains every level and keeps its best step on validation."""
    accelerator = start(config)
    _, header = load_tokenizer(config, run)
    store = codes.read(run / "codes", header["fingerprint"])
    for level in range(len(store.grids)):
        with stage(f"train prior {level}", run) as note:
            save(config, run)
            section = config.prior_of(level)
            result = fit(
                make_prior(section, code_space(store, level)),
                section,
                accelerator,
                folder(run, level),
                step_loss=_step_loss(config, store, level, accelerator.device),
                validate=_validate(store, level, accelerator.device),
                facts={"tokenizer": header["fingerprint"], "level": level},
            )
            note["result"] = result.summary("bits/code")


def folder(run: Path, level: int) -> Path:
    """Where a level's prior lives."""
    return run / f"prior-{level}"


def code_space(store: CodeStore, level: int) -> CodeSpace:
    """What the prior of a level models and is told."""
    sizes = list(zip(store.num_embeddings, store.grids, strict=True))
    return CodeSpace(*sizes[level], num_labels=store.num_labels, upper=tuple(sizes[:level]))


def make_prior(section: PriorConfig, space: CodeSpace) -> Prior:
    """The untrained prior that the configuration names."""
    return PRIORS[section.kind](getattr(section, section.kind), space)


def _step_loss(config: RunConfig, store: CodeStore, level: int, device: torch.device) -> Any:
    section, train = config.prior_of(level), store.train
    order = Order(
        train.size, train.draws, section.batch_size, section.clean_share, config.seed + level
    )

    def step_loss(model: Prior, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = train.batch(*order.at(step)).to(device)
        loss = model.loss(batch.codes[level], batch.labels, batch.codes[:level])
        return loss, {"train": loss * BITS}

    return step_loss


def _validate(store: CodeStore, level: int, device: torch.device) -> Any:
    held_out = store.splits["validation"].to(device)

    def validate(model: Prior) -> float:
        loss = model.validation_loss(
            held_out.codes[level], held_out.labels, held_out.codes[:level]
        )
        return loss.mean().item() * BITS

    return validate


def load_priors(config: RunConfig, run: Path, tokenizer: str, levels: int) -> list[Prior]:
    """Loads the run's priors, top level first, for the stages after this one.

    Args:
        config: names the kinds.
        run: run folder.
        tokenizer: fingerprint of the tokenizer whose codes they must model.
        levels: how many there are.

    Raises:
        FileNotFoundError: if one has not been trained.
        ValueError: if one models the codes of another tokenizer.
    """
    return [load_prior(config, run, tokenizer, level)[0] for level in range(levels)]


def load_prior(
    config: RunConfig, run: Path, tokenizer: str, level: int
) -> tuple[Prior, dict[str, Any]]:
    """Loads the prior of one level; see `load_priors`."""
    kind = PRIORS[config.prior_of(level).kind]
    where = folder(run, level)
    model, header = checkpoint.load(where, kind, made_by=f"vqk train prior {run}")
    if header["facts"]["tokenizer"] != tokenizer:
        raise ValueError(
            f"{where} must model codes of tokenizer {tokenizer[:12]}, got "
            f"{header['facts']['tokenizer'][:12]}: run `vqk train prior {run}` again"
        )
    return model, header


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    train_prior(*parse(sys.argv[1:] if argv is None else argv, "train prior"))


if __name__ == "__main__":
    main()

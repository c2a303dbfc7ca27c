"""Stage 3: train the priors, one for each level of codes.

    vqk train prior runs/digits --prior.steps 200
    vqk train prior runs/digits --level 0

Reads RUN/codes. Writes RUN/prior-0 (the top level), RUN/prior-1 and so on, each with the step
that is best on the validation codes (model.safetensors, config.json), the last checkpoint
(state.safetensors) and log.jsonl. With a thousand grids a prior overfits within seconds. Killed
at any moment, it goes on from the last checkpoint when it is called again. On several processes:

    torchrun --nproc-per-node 2 -m vqtrain train prior runs/digits
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from vqtrain import checkpoint, codes
from vqtrain.codes import CodeSet, CodeStore
from vqtrain.config import LEVEL, RESUME, RunConfig, parse, save, take_options
from vqtrain.config.sections import PriorConfig
from vqtrain.fit import Objective, Order, Trainer, Validation, finished
from vqtrain.metrics.ledger import BITS
from vqtrain.models.tokenizer import Codes
from vqtrain.priors import PRIORS
from vqtrain.priors.prior import CodeSpace, Prior
from vqtrain.runtime import finished_before, stage, start
from vqtrain.train_tokenizer import load_tokenizer

UNIT = "bits/code"


class PriorObjective(Objective):
    """A prior's own loss, in nats, and the same in bits."""

    model: Prior

    def forward(
        self, grids: Tensor, labels: Tensor, *upper: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.model.loss(grids, labels, upper)
        return loss, {"train": loss * BITS}


def train_prior(config: RunConfig, run: Path, level: str = "all", resume: str = "auto") -> None:
    """Trains one level or all of them and keeps the best step of each on validation.

    Args:
        config: names model and training.
        run: run folder.
        level: `all`, or one level's number.
        resume: `auto`, `never` or a checkpoint (of a single level); see
            `vqtrain.fit.Trainer.fit`.

    Raises:
        FileNotFoundError: if there are no codes.
        ValueError: if the codes are of another tokenizer, or there is no such level.
    """
    accelerator = start(config)
    _, header = load_tokenizer(config, run)
    store = codes.read(run / "codes", header["fingerprint"])
    levels = [str(number) for number in range(len(store.grids))]
    if level not in ("all", *levels):
        raise ValueError(f"level must be all or one of {', '.join(levels)}, got {level!r}")
    for number in range(len(levels)) if level == "all" else [int(level)]:
        _train_level(config, run, store, number, resume, accelerator)


def _train_level(
    config: RunConfig,
    run: Path,
    store: CodeStore,
    level: int,
    resume: str,
    accelerator: Accelerator,
) -> None:
    name, where, section = f"train prior {level}", folder(run, level), config.prior_of(level)
    settings = training_settings(config, level, store)
    done = finished(where, settings, resume)
    if done is not None:
        if accelerator.is_main_process:
            save(config, run)
        finished_before(name, run, done.summary(UNIT), done.seconds_before)
        return
    with stage(name, run) as note:
        start(config)  # each level starts from the seed, as if it were trained alone
        model = make_prior(section, code_space(store, level))
        held_out = store.splits["validation"].to(accelerator.device)
        train = store.train

        def batch(rows: Tensor, draws: Tensor) -> Codes:
            items = train.batch(rows, draws).to(accelerator.device)
            return (items.codes[level], items.labels, *items.codes[:level])

        trainer = Trainer(
            objective=PriorObjective(model),
            config=section,
            accelerator=accelerator,
            folder=where,
            order=Order(
                train.size,
                train.draws,
                section.batch_size,
                section.clean_share,
                config.seed + level,
            ),
            batch=batch,
            validate=lambda: validate(model, held_out, level, config.eval.batch_size),
            settings=settings,
            facts={"tokenizer": store.tokenizer, "level": level},
            log=config.log,
            checkpoints=config.checkpoint,
        )
        if accelerator.is_main_process:
            save(config, run)
        result = trainer.fit(resume)
        note["result"] = result.summary(UNIT)
        note["seconds_before"] = result.seconds_before


def training_settings(config: RunConfig, level: int, store: CodeStore) -> dict[str, Any]:
    """All that decides what is trained, under the names that the configuration gives it."""
    section = asdict(config.prior_of(level))
    kinds = {kind: section.pop(kind) for kind in PRIORS if kind in section}
    kind = config.prior_of(level).kind
    name = "prior" if config.prior_of(level) is config.prior else "lower_prior"
    return {
        "seed": config.seed,
        "precision": config.precision,
        "tokenizer": store.tokenizer,
        "extract": {"draws": store.train.draws},
        name: {**section, kind: kinds[kind]},
    }


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


def validate(model: Prior, held_out: CodeSet, level: int, batch_size: int) -> Validation:
    """Bits per code of held-out codes; of the masked prior, its training loss in bits."""
    losses = []
    for rows in torch.arange(len(held_out.rows), device=held_out.rows.device).split(batch_size):
        items = held_out.take(rows)
        loss = model.validation_loss(items.codes[level], items.labels, items.codes[:level])
        losses.append(loss)
    return Validation(torch.cat(losses).mean().item() * BITS)


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
            f"{header['facts']['tokenizer'][:12]}: run `vqk train prior {run} --resume never`"
        )
    return model, header


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    options, rest = take_options(sys.argv[1:] if argv is None else argv, LEVEL, RESUME)
    train_prior(*parse(rest, "train prior"), options["level"], options["resume"])


if __name__ == "__main__":
    main()

"""The training loop of both models: schedule, averaged weights, validation, best checkpoint.

On a small data set the last step is never the best one (the prior overfits within seconds), so
what a fit leaves behind is the step with the lowest validation value.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from vqtrain import checkpoint
from vqtrain.config import FitConfig

Model = TypeVar("Model", bound=nn.Module)


class Fit(NamedTuple):
    """Result of a fit: the step that was kept, its validation value, and the last step made."""

    best_step: int
    best_value: float
    last_step: int

    def summary(self, unit: str) -> str:
        return (
            f"kept step {self.best_step} of {self.last_step}: "
            f"{self.best_value:.3f} {unit} on validation"
        )


def fit(
    model: Model,
    config: FitConfig,
    accelerator: Accelerator,
    folder: Path,
    *,
    step_loss: Callable[[Model, int], tuple[Tensor, dict[str, Tensor]]],
    validate: Callable[[Model], float],
    facts: dict[str, Any],
) -> Fit:
    """Trains a model and keeps the best weights in `folder`.

    Args:
        model: with `description()`; trained in place.
        config: steps, schedule, validation.
        accelerator: decides the device.
        folder: gets the checkpoint and `log.jsonl` (one line per validation).
        step_loss: loss of a step, counted from 0, and further scalars to log, as 0-d tensors.
        validate: value to minimise, of a model in eval mode and without gradients.
        facts: kept in the checkpoint, beside step and validation value.

    Returns:
        Which step was kept.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, config))
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    averaged = AveragedModel(model, avg_fn=_ema(config.weight_ema)) if config.weight_ema else None
    folder.mkdir(parents=True, exist_ok=True)

    best = Fit(best_step=0, best_value=math.inf, last_step=0)
    totals: dict[str, Tensor] = {}
    begin = time.perf_counter()
    with (
        open(folder / "log.jsonl", "w") as log,
        tqdm(range(1, config.steps + 1), disable=not sys.stderr.isatty(), unit="step") as steps,
    ):
        for step in steps:
            model.train()
            loss, scalars = step_loss(model, step - 1)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if averaged is not None:
                averaged.update_parameters(model)
            # Sums stay on the device; they are read only when a line is written.
            for key, scalar in {"loss": loss, **scalars}.items():
                totals[key] = totals.get(key, 0) + scalar.detach()
            best = best._replace(last_step=step)
            if step % config.validate_every and step != config.steps:
                continue

            candidate: Any = model if averaged is None else averaged.module
            candidate.eval()
            with torch.no_grad():
                value = validate(candidate)
            since = step - (step - 1) // config.validate_every * config.validate_every
            line = {
                "step": step,
                "seconds": round(time.perf_counter() - begin, 3),
                "learning_rate": schedule.get_last_lr()[0],
                **{key: total.item() / since for key, total in totals.items()},
                "validation": value,
            }
            totals = {}
            log.write(json.dumps(line) + "\n")
            log.flush()
            steps.set_postfix_str(
                f"validation {value:.3f}, best {min(value, best.best_value):.3f}"
            )
            if value < best.best_value:
                best = best._replace(best_step=step, best_value=value)
                checkpoint.save(folder, candidate, {**facts, "step": step, "validation": value})
            elif 0 < config.patience * config.validate_every <= step - best.best_step:
                break
    if not best.best_step:
        raise RuntimeError(f"validation must give a finite value at least once, got {value}")
    return best


def _cosine(step: int, config: FitConfig) -> float:
    """Linear warm-up, then half a cosine down to 0; a factor of the learning rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _ema(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Averaging rule whose memory grows with the steps made: the initial weights are forgotten."""

    def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        warm = torch.as_tensor((1 + updates) / (10 + updates), dtype=current.dtype)
        return torch.lerp(current, averaged, warm.clamp(max=decay).to(current.device))

    return average

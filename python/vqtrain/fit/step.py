"""One optimiser step: this rank's slice of the batch, split, averaged over all of it."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from vqtrain.config import FitConfig
from vqtrain.fit.order import Order
from vqtrain.fit.schedule import learning_rate
from vqtrain.fit.state import Training

Batch = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def take_step(
    training: Training,
    objective: Any,
    config: FitConfig,
    accelerator: Accelerator,
    order: Order,
    batch: Batch,
) -> None:
    """Makes the step after `training.progress.step`.

    Args:
        training: moves on by a step.
        objective: as accelerate prepared it.
        config: schedule, accumulation, clipping.
        accelerator: precision and ranks.
        order: what the step trains on; rank r of w takes the r-th of w equal parts.
        batch: rows and draws to what `objective` takes.
    """
    step = training.progress.step
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    objective.train()
    rows, draws = (
        part.chunk(accelerator.num_processes)[accelerator.process_index].chunk(config.accumulate)
        for part in order.at(step)
    )
    for number, items in enumerate(zip(rows, draws, strict=True), start=1):
        # Ranks exchange gradients once, with the last part.
        last = number == config.accumulate
        with contextlib.nullcontext() if last else accelerator.no_sync(objective):
            loss, scalars = objective(*batch(*items))
            accelerator.backward(loss / config.accumulate)
        # Sums stay on the device; they are read only when a line is written.
        for name, value in {"loss": loss, **scalars}.items():
            mean = value.detach().float() / config.accumulate
            training.totals[name] = training.totals.get(name, torch.zeros_like(mean)) + mean
    accelerator.clip_grad_norm_(training.model.parameters(), config.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.progress.step = step + 1
    if training.average is not None:
        training.average.update(training.progress.step)

"""The training loop of tokenizers and priors, on one process or several.

On a small data set the last step is never the best one (the prior overfits within seconds), so
what training leaves behind is the step with the lowest validation value. Beside it lies the last
checkpoint, from which training that was killed goes on, bit for bit as if it had not been.

    FOLDER/model.safetensors, config.json   the best weights
    FOLDER/state.safetensors                the last checkpoint
    FOLDER/step-000500/                     both, as they were after that step
    FOLDER/log.jsonl                        a line per validation
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import broadcast  # type: ignore[import-untyped]
from tqdm import tqdm

from vqtrain import checkpoint
from vqtrain.config import CheckpointConfig, FitConfig, LogConfig
from vqtrain.files import sole_writer, sync_folder, temporary_name
from vqtrain.fit import codebooks, log, rng, services, state
from vqtrain.fit.average import WeightAverage
from vqtrain.fit.log import Log
from vqtrain.fit.objective import Fit, Objective, Validation
from vqtrain.fit.order import Order
from vqtrain.fit.state import Progress, Training
from vqtrain.fit.step import Batch, take_step


@dataclass(kw_only=True)
class Trainer:
    """Trains `objective.model` and keeps its best weights in `folder`.

    Several ranks (torchrun) give the training of one process on the union of their batches, up to
    rounding, while nothing random happens within a step (dropout, revived codes): each takes a
    slice of every batch, and the first one validates and writes.

    Attributes:
        objective: the model and its loss.
        config: steps, schedule, validation.
        accelerator: device, precision and ranks.
        folder: see the module's docstring.
        order: rows and draws of every step.
        batch: rows and draws to what `objective` takes, on the device.
        validate: called in eval mode, without gradients, torch's generators set aside.
        settings: all that decides the result, under the names that users know; JSON values.
        facts: kept with the weights, beside step and validation value.
        log: services that get the lines of the log.
        checkpoints: how often to write what.
    """

    objective: Objective
    config: FitConfig
    accelerator: Accelerator
    folder: Path
    order: Order
    batch: Batch
    validate: Callable[[], Validation]
    settings: dict[str, Any]
    facts: dict[str, Any]
    log: LogConfig = field(default_factory=LogConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    model: Any = field(init=False)  # with `description`, which nn.Module lacks

    def __post_init__(self) -> None:
        parts = self.accelerator.num_processes * self.config.accumulate
        if self.config.batch_size % parts:
            raise ValueError(
                f"batch_size must be a multiple of ranks times accumulate, {parts}, "
                f"got {self.config.batch_size}"
            )
        services.check_installed(self.log)
        self.model = self.objective.model
        self.settings = {
            **self.settings,
            "ranks": self.accelerator.num_processes,
            "model": self.model.description(),
        }

    def fit(self, resume: str = "auto") -> Fit:
        """Trains to the end.

        Args:
            resume: `auto` goes on from `folder` if there is a checkpoint, `never` starts anew, a
                path goes on from that checkpoint.

        Returns:
            Which step was kept.

        Raises:
            ValueError: if a checkpoint was made with other settings or is damaged, or another
                process trains in `folder`.
            FileNotFoundError: if `resume` is a path without a checkpoint, or the best weights
                that a checkpoint speaks of are gone.
            OSError: if the disk is full.
            RuntimeError: if no validation gave a finite value.
        """
        found = state.find(self.folder, resume)
        if found is not None:
            state.check_settings(found, self.settings)
        with contextlib.ExitStack() as stack:
            if self.accelerator.is_main_process:
                stack.enter_context(sole_writer(self.folder))
            self._begin(found)
            before = self.training.progress.seconds
            self._run(stack)
        return self.training.progress.result(before)

    def _begin(self, found: Path | None) -> None:
        """Makes what a step needs, from a checkpoint or from the seed."""
        config, main = self.config, self.accelerator.is_main_process
        codebooks.move_once_per_step(self.model, config.accumulate)
        optimizer: Any = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
        )
        self.prepared, optimizer = self.accelerator.prepare(self.objective, optimizer)
        average = WeightAverage(self.model, config.weight_ema) if config.weight_ema else None
        self.training = Training(self.model, optimizer, average, {}, Progress())
        if found is not None:
            state.load(found, self.training, self.accelerator)
            state.check_best(self.folder, self.training.progress)
        else:
            if main:
                clear(self.folder)
            rng.separate(self.order.seed, self.accelerator.process_index)
            codebooks.initialise(self.objective, self.batch(*self.order.at(0)))
        self.accelerator.wait_for_everyone()

    def _run(self, stack: contextlib.ExitStack) -> None:
        progress, config = self.training.progress, self.config
        self.writer: Log | None = None
        if self.accelerator.is_main_process:
            self.writer = Log(self.folder, self.log, progress.lines, progress.step)
            stack.callback(self.writer.close)
        shown = self.writer is not None and sys.stderr.isatty()
        self.bar = stack.enter_context(
            tqdm(total=config.steps, initial=progress.step, disable=not shown, unit="step")
        )
        begin = time.perf_counter() - progress.seconds
        saves_every = self.checkpoints.every or config.validate_every
        keeps_every = self.checkpoints.keep_every
        while not progress.finished:
            take_step(
                self.training, self.prepared, config, self.accelerator, self.order, self.batch
            )
            self.bar.update()
            progress.seconds = time.perf_counter() - begin
            progress.finished = progress.step == config.steps
            if progress.finished or progress.step % config.validate_every == 0:
                self._validate()
            keeps = keeps_every > 0 and progress.step % keeps_every == 0
            if progress.finished or keeps or progress.step % saves_every == 0:
                self._save(keeps)

    def _validate(self) -> None:
        """Measures, writes a line of the log, and keeps the weights if they are the best."""
        progress, config = self.training.progress, self.config
        self._share_totals()
        value = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        with self._candidate():
            if self.writer is not None:
                with torch.no_grad(), rng.set_aside(self.order.seed):
                    found = self.validate()
                self._report(self.writer, found)
                value.fill_(found.value)
            progress.take(broadcast(value).item())
            if self.writer is not None and progress.best_step == progress.step:
                checkpoint.save(self.folder, self.model, self._facts(validation=found.value))
        waited = progress.step - progress.best_step
        if 0 < config.patience * config.validate_every <= waited:
            progress.finished = True
        if progress.finished and not progress.best_step:
            raise RuntimeError("validation must give a finite value at least once, got none")
        self.training.totals.clear()

    def _report(self, writer: Log, found: Validation) -> None:
        progress, every = self.training.progress, self.config.validate_every
        since = progress.step - (progress.step - 1) // every * every
        writer.write(
            {
                "step": progress.step,
                "seconds": round(progress.seconds, 3),
                "learning_rate": self.training.optimizer.param_groups[0]["lr"],
                **{name: total.item() / since for name, total in self.training.totals.items()},
                "validation": found.value,
                **found.scalars,
            }
        )
        progress.lines = writer.lines
        for warning in found.warnings:
            self.bar.write(f"warning: step {progress.step}: {warning}", file=sys.stderr)
        self.bar.set_postfix_str(f"validation {found.value:.3f}")

    def _save(self, keeps: bool) -> None:
        """Writes a checkpoint; one that is kept gets a folder, which appears in one rename."""
        kept = self.folder / f"step-{self.training.progress.step:06d}"
        part = temporary_name(kept)
        if keeps:
            with self._candidate():
                if self.writer is not None:
                    checkpoint.save(part, self.model, self._facts())
        self._share_totals()
        content = state.content(self.training, self.settings, self.accelerator)
        if self.writer is None:
            return
        if keeps:
            state.write(part, content)
            if kept.is_dir():  # this step is being repeated, and its result is the same
                shutil.rmtree(part)
            else:
                part.rename(kept)
                sync_folder(self.folder)
            self._forget_oldest()
        # Last: what comes before the state is repeated by a process that does not find it.
        state.write(self.folder, content)

    def _forget_oldest(self) -> None:
        if self.checkpoints.keep:
            for kept in state.kept(self.folder)[: -self.checkpoints.keep]:
                gone = kept.rename(temporary_name(kept))
                shutil.rmtree(gone)

    @contextlib.contextmanager
    def _candidate(self) -> Iterator[None]:
        """Inside, the model is as it would be kept: in eval mode, with averaged weights."""
        # On every rank, since leaving training mode moves the codebooks.
        self.objective.eval()
        average = self.training.average
        with contextlib.nullcontext() if average is None else average.applied():
            yield

    def _share_totals(self) -> None:
        """Gives every rank the mean of all ranks' sums."""
        totals = self.training.totals
        if totals and self.accelerator.num_processes > 1:
            shared = self.accelerator.reduce(torch.stack(list(totals.values())), "mean")
            totals.update(zip(totals, shared.unbind(), strict=True))

    def _facts(self, **more: Any) -> dict[str, Any]:
        return {**self.facts, "step": self.training.progress.step, **more}


def clear(folder: Path) -> None:
    """Removes what an earlier training has left, its checkpoint first: nothing may take the rest
    for finished."""
    for name in (state.FILE, "step-*", *checkpoint.FILES, log.FILE, *services.SERVICES):
        for path in folder.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

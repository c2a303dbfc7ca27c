"""Everything that moves in training, on disk in one file: what an interrupted fit goes on from.

`state.safetensors` holds raw and averaged weights, codebooks and other buffers, the optimizer's
moments, the sums behind the next line of the log and the random numbers' states of every rank as
tensors, and the rest (`Progress`, the settings) as JSON in its header. It is replaced in a single
rename, so it is of one step, whatever happens to the process. Schedule and sampler need no entry:
they are functions of the step.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
from accelerate import Accelerator  # type: ignore[import-untyped]
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from vqtrain.files import write_atomic
from vqtrain.fit import rng
from vqtrain.fit.average import WeightAverage
from vqtrain.fit.objective import Fit

SCHEMA = 1
FILE = "state.safetensors"


@dataclass
class Progress:
    """How far a fit has come.

    Attributes:
        step: steps made.
        best_step: the step that validated best; 0 before the first validation.
        best_value: its value.
        seconds: wall time spent, in all processes that have worked on it.
        lines: lines of `log.jsonl`.
        finished: whether nothing is left to do.
    """

    step: int = 0
    best_step: int = 0
    best_value: float | None = None
    seconds: float = 0.0
    lines: int = 0
    finished: bool = False

    def take(self, value: float) -> None:
        """Takes in what this step's validation found; a value that is not finite is never best."""
        if math.isfinite(value) and (self.best_value is None or value < self.best_value):
            self.best_step, self.best_value = self.step, value

    def result(self, seconds_before: float) -> Fit:
        assert self.best_value is not None
        return Fit(self.best_step, self.best_value, self.step, seconds_before)


@dataclass
class Training:
    """What a step changes.

    Attributes:
        model: raw weights, and the buffers.
        optimizer: as accelerate prepared it.
        average: averaged weights, if any are kept.
        totals: sums of what was logged in each step since the last line, on the device.
        progress: how far it has come.
    """

    model: nn.Module
    optimizer: Any
    average: WeightAverage | None
    totals: dict[str, Tensor]
    progress: Progress


def content(training: Training, settings: dict[str, Any], accelerator: Accelerator) -> bytes:
    """The state as the content of a file, on the first rank. Collective: every rank calls it.

    Args:
        training: what to keep.
        settings: what the training is decided by; JSON values.
        accelerator: over whose ranks the random numbers' states are gathered.
    """
    # One row for each rank; gathered on the device, since some back ends know no other.
    tensors = {
        f"rng.{name}": accelerator.gather(value[None].to(accelerator.device))
        for name, value in rng.states().items()
    }
    if not accelerator.is_main_process:
        return b""
    tensors |= {f"model.{name}": value for name, value in training.model.state_dict().items()}
    if training.average is not None:
        tensors |= {f"average.{name}": value for name, value in training.average.values.items()}
    for number, moments in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    tensors |= {f"totals.{name}": value for name, value in training.totals.items()}
    scaler = accelerator.scaler
    header = {
        "schema": SCHEMA,
        "progress": asdict(training.progress),
        "settings": settings,
        "scaler": None if scaler is None else scaler.state_dict(),
    }
    # Clones, because safetensors refuses tensors that share memory.
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return safetensors_save(whole, metadata={"state": json.dumps(header)})


def load(path: Path, training: Training, accelerator: Accelerator) -> None:
    """Puts a state back. Every rank calls it and reads the file itself.

    Raises:
        ValueError: if the file is damaged.
    """
    header = read_header(path)
    try:
        tensors = safetensors_load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error

    def under(prefix: str) -> dict[str, Tensor]:
        length = len(prefix)
        return {name[length:]: t for name, t in tensors.items() if name.startswith(prefix)}

    training.model.load_state_dict(under("model."))
    if training.average is not None:
        for name, value in under("average.").items():
            training.average.values[name].copy_(value)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer.").items():
        number, key = name.split(".")
        moments.setdefault(int(number), {})[key] = value
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": moments})
    training.totals = {n: t.to(accelerator.device) for n, t in under("totals.").items()}
    training.progress = Progress(**header["progress"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(header["scaler"])
    rank = accelerator.process_index
    rng.restore({name: rows[rank] for name, rows in under("rng.").items()})


def read_header(path: Path) -> dict[str, Any]:
    """The JSON part of a state.

    Raises:
        ValueError: if the file is damaged or of another schema.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error
    header: dict[str, Any] = json.loads(metadata.get("state", "{}"))
    if header.get("schema") != SCHEMA:
        raise ValueError(f"{path} must have schema {SCHEMA}, got {header.get('schema')!r}")
    return header


def finished(folder: Path, settings: dict[str, Any], resume: str) -> Fit | None:
    """The result of training that is complete; None if there is something left to do.

    Args:
        folder, settings, resume: as for `Trainer`, except that settings may be a part of them.

    Raises:
        ValueError: if the training was made with other settings, or its files are damaged.
        FileNotFoundError: if `resume` is a path without a state, or the best weights are gone.
    """
    path = find(folder, resume)
    if path is None:
        return None
    check_settings(path, settings)
    progress = Progress(**read_header(path)["progress"])
    if not progress.finished:
        return None
    check_best(folder, progress)
    return progress.result(progress.seconds)


def check_best(folder: Path, progress: Progress) -> None:
    """Refuses a state whose best weights are gone.

    Raises:
        FileNotFoundError: if so.
    """
    path = folder / "model.safetensors"
    if progress.best_step and not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, which held step {progress.best_step}: pass --resume never to "
            "train anew"
        )


def _damaged(path: Path, error: Exception) -> ValueError:
    others = kept(path.parent)
    way = f"pass --resume {others[-1]} or " if others else ""
    return ValueError(
        f"{path} must be a whole safetensors file, got: {error}: {way}pass --resume never to "
        "train anew"
    )


def kept(folder: Path) -> list[Path]:
    """The checkpoints that are kept in a folder of a fit, oldest first."""
    # By number: from the millionth step on, names are longer.
    numbers = {path: path.name.removeprefix("step-") for path in folder.glob("step-*")}
    return sorted((p for p in numbers if numbers[p].isdecimal()), key=lambda p: int(numbers[p]))


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuses to go on from a state of a training that was decided by other settings.

    Raises:
        ValueError: naming the first field that differs.
    """
    known = read_header(path)["settings"]
    asked = json.loads(json.dumps(settings))  # as JSON gives them back: lists for tuples
    for name, was, now in _differences({key: known.get(key) for key in asked}, asked):
        raise ValueError(
            f"{name} must be {was!r}, with which {path.parent} was trained, got {now!r}: pass "
            "--resume never to train anew, or --out for another run folder"
        )


def _differences(was: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names of the values that differ, with both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*was, *now)):
            inner = f"{name}.{key}" if name else key
            yield from _differences(was.get(key), now.get(key), inner)
    elif was != now:
        yield name, was, now


def write(folder: Path, content: bytes) -> None:
    write_atomic(folder / FILE, content)


def find(folder: Path, resume: str) -> Path | None:
    """The state that `--resume` means: `auto`, `never`, a state file or a folder that holds one.

    Returns:
        None where training starts anew.

    Raises:
        FileNotFoundError: if a path was given and there is no state.
    """
    if resume == "never":
        return None
    path = folder / FILE if resume == "auto" else Path(resume)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        if resume == "auto":
            return None
        raise FileNotFoundError(f"{path} is missing: pass --resume auto, never or a folder of one")
    return path

"""TensorBoard and Weights & Biases: optional extras, imported when a run asks for them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from vqtrain.config import LogConfig
from vqtrain.files import write_atomic


class Service(Protocol):
    """Takes the numbers of a line of the log, `step` among them."""

    def write(self, numbers: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Events in `FOLDER/tensorboard`; those of an earlier process after `step` do not count."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, int(numbers["step"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of the project `vqtrain`; with `WANDB_MODE=offline`, files in `FOLDER/wandb`.

    A fit that goes on from a checkpoint goes on with the run that it began.
    """

    def __init__(self, folder: Path, step: int) -> None:
        import wandb

        identity = folder / "wandb" / "id"
        if not identity.is_file():
            write_atomic(identity, uuid4().hex[:8].encode())
        self._run = wandb.init(
            project="vqtrain",
            name=f"{folder.parent.name}/{folder.name}",
            dir=str(folder),
            id=identity.read_text(),
            resume="allow" if step else None,
        )

    def write(self, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=int(numbers["step"]))

    def close(self) -> None:
        self._run.finish()


# By the field of LogConfig that asks for it, which is also the package and the extra.
SERVICES: dict[str, Callable[[Path, int], Service]] = {"tensorboard": TensorBoard, "wandb": WandB}


def check_installed(config: LogConfig) -> None:
    """Refuses a service whose package is missing, before anything is written.

    Raises:
        ValueError: naming the extra that installs it.
    """
    for name in SERVICES:
        if getattr(config, name) and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"log.{name} must be false where {name} is not installed, got true: "
                f"pip install 'vqkernels[{name}]'"
            )

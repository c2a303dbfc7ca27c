"""Where a fit reports to: `log.jsonl` always, TensorBoard and Weights & Biases if asked for."""

import json
import math
import os
from pathlib import Path
from typing import Any

from vqtrain.config import LogConfig
from vqtrain.files import named_errors, write_atomic
from vqtrain.fit.services import SERVICES

FILE = "log.jsonl"


class Log:
    """One line of JSON per validation, and the same numbers in the services asked for.

    Args:
        folder: gets `log.jsonl`, and a folder per service.
        config: which services.
        lines: lines of an earlier process to keep; what it wrote after its last checkpoint is cut
            off, in one rename.
        step: the step of that checkpoint.

    Raises:
        ValueError: if a service is not installed.
    """

    def __init__(self, folder: Path, config: LogConfig, lines: int, step: int) -> None:
        self.path, self.lines = folder / FILE, lines
        self._services = [
            make(folder, step) for name, make in SERVICES.items() if getattr(config, name)
        ]
        before = self.path.read_bytes() if self.path.is_file() else b""
        write_atomic(self.path, b"".join(before.splitlines(keepends=True)[:lines]))

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line; a number that is not finite becomes null, which JSON can say."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in line.items()
        }
        with named_errors(self.path), open(self.path, "a") as file:
            file.write(json.dumps(finite) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines += 1
        numbers = {key: value for key, value in finite.items() if isinstance(value, (int, float))}
        for service in self._services:
            service.write(numbers)

    def close(self) -> None:
        for service in self._services:
            service.close()

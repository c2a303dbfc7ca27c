"""Files that are either whole or absent: written to a temporary name, synced, then renamed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves the old content or the new, never a part.

    Args:
        path: destination; missing parent folders are made.
        content: everything the file shall hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must reach the disk
    finally:
        os.close(folder)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes readable JSON atomically; NaN and infinity are refused."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Reads JSON that an earlier stage wrote.

    Raises:
        FileNotFoundError: if it is not there; the text names `made_by`, the command that writes
            it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `{made_by}` first")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Files that are either whole or absent: written to a temporary name, synced, then renamed."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The name of what is being written says who writes it, so that it can be told from a leftover.
_TEMPORARY = re.compile(r"\..+\.(?P<host>.+)-(?P<pid>\d+)\.tmp")


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves the old content or the new, never a part.

    Args:
        path: destination; missing parent folders are made.
        content: everything the file shall hold.

    Raises:
        OSError: if the disk is full or refuses; the old content is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with named_errors(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """The name, beside `path`, under which this process writes what becomes `path`."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Gives an error of the disk the file's name and what can be done about it."""
    try:
        yield
    except OSError as error:
        text = (
            f"{path} could not be written ({error.strerror or error}); nothing that was written "
            f"before is lost: free space below {path.parent}, then run the same command again"
        )
        raise OSError(error.errno, text) from error


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that are no more were writing when they ended.

    What a process of another machine or container has left stays: whether that one is alive
    cannot be known here.
    """
    for path in folder.rglob(".*.tmp"):
        owner = _TEMPORARY.fullmatch(path.name)
        if owner is None or owner["host"] != socket.gethostname() or _alive(int(owner["pid"])):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds a folder against a second process that would write the same files.

    The lock ends with the process, however that ends.

    Raises:
        ValueError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a folder, and then nothing is guarded.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"{folder} must have one writer, got a second: another process trains there"
                ) from error
        yield
    finally:
        os.close(handle)


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

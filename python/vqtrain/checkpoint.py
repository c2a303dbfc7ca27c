"""Checkpoints: one safetensors file whose header holds everything needed to rebuild the model.

A single file replaced in one rename cannot disagree with itself; `config.json` beside it
repeats the header for human readers and is never read back.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol, TypeVar

import safetensors
import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save

from vqtrain.files import write_atomic, write_json

SCHEMA = 1
FILES = ("model.safetensors", "config.json")


class Describable(Protocol):
    """A module that can be rebuilt from JSON."""

    def description(self) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...


Model = TypeVar("Model", bound=torch.nn.Module)


def fingerprint(model: Describable) -> str:
    """SHA-256 of a model's description and of every bit of its weights."""
    digest = hashlib.sha256(json.dumps(model.description(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def save(folder: Path, model: Describable, facts: dict[str, Any]) -> None:
    """Writes a model atomically, in place of the one that is there.

    Args:
        folder: gets `model.safetensors` and `config.json`.
        model: any module with `description()`.
        facts: JSON values to keep with it, such as step and validation result.
    """
    header = {
        "schema": SCHEMA,
        "kind": type(model).__name__,
        "fingerprint": fingerprint(model),
        "description": model.description(),
        "facts": facts,
    }
    # Clones, because safetensors refuses tensors that share memory.
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    content = safetensors_save(tensors, metadata={"checkpoint": json.dumps(header)})
    write_atomic(folder / "model.safetensors", content)
    write_json(folder / "config.json", header)


def read_header(folder: Path, made_by: str) -> dict[str, Any]:
    """What was kept with the weights: `kind`, `fingerprint`, `description` and `facts`.

    Args:
        folder: what `save` was given.
        made_by: command that writes this checkpoint, for the error text.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the file is damaged or of another schema.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `{made_by}` first")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got: {error}") from error
    header: dict[str, Any] = json.loads((metadata or {}).get("checkpoint", "{}"))
    if header.get("schema") != SCHEMA:
        raise ValueError(f"{path} must have schema {SCHEMA}, got {header.get('schema')!r}")
    return header


def load(folder: Path, kind: type[Model], made_by: str) -> tuple[Model, dict[str, Any]]:
    """Rebuilds a model from its checkpoint, on the CPU and in eval mode.

    Args:
        folder: what `save` was given.
        kind: class of the model, with `from_description`.
        made_by: command that writes this checkpoint, for the error text.

    Returns:
        The model and its header, see `read_header`.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the file is damaged, of another kind or of another schema.
    """
    header, path = read_header(folder, made_by), folder / "model.safetensors"
    if header["kind"] != kind.__name__:
        raise ValueError(f"{path} must have kind {kind.__name__!r}, got {header['kind']!r}")
    model: Model = kind.from_description(header["description"])  # type: ignore[attr-defined]
    model.load_state_dict(safetensors_load(path.read_bytes()))
    return model.eval(), header

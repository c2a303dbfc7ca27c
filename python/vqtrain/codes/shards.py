"""One file of codes: whole or absent, and able to say what it belongs to."""

import hashlib
import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as safetensors_save
from torch import Tensor

from vqtrain.codes.sets import CodeSet
from vqtrain.files import write_atomic


def storage_dtype(num_embeddings: int) -> torch.dtype:
    """The smallest of uint8, uint16 and int32 that holds `0 .. K - 1`."""
    if num_embeddings <= 2**8:
        return torch.uint8
    return torch.uint16 if num_embeddings <= 2**16 else torch.int32


def write_shard(path: Path, items: CodeSet, sizes: tuple[int, ...], store: str) -> None:
    """Writes a shard that `is_whole` recognises.

    Args:
        path: destination.
        items: what to write.
        sizes: K of each level, which decides the dtype of its codes.
        store: digest of the store's header.
    """
    tensors = _tensors(
        items._replace(
            codes=tuple(
                level.to(storage_dtype(k)) for level, k in zip(items.codes, sizes, strict=True)
            )
        ).to("cpu")
    )
    # One key: safetensors writes several in random order, and equal shards shall be equal files.
    label = json.dumps({"store": store, "content": _content(tensors)})
    write_atomic(path, safetensors_save(tensors, metadata={"shard": label}))


def is_whole(path: Path, store: str) -> bool:
    """Whether a file is an undamaged shard of this very store."""
    if not path.is_file():
        return False
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            label: dict[str, str] = json.loads((file.metadata() or {}).get("shard", "{}"))
            if label.get("store") != store:
                return False
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return label.get("content") == _content(tensors)
    except safetensors.SafetensorError:
        return False


def read_shard(path: Path) -> CodeSet:
    """Maps a shard into memory; pages are read when they are used."""
    with safetensors.safe_open(path, framework="pt") as file:
        levels = sum(name.startswith("codes.") for name in sorted(file.keys()))
        return CodeSet(
            tuple(file.get_tensor(f"codes.{level}") for level in range(levels)),
            *(file.get_tensor(name) for name in CodeSet._fields[1:]),
        )


def _tensors(items: CodeSet) -> dict[str, Tensor]:
    levels = {f"codes.{number}": level.contiguous() for number, level in enumerate(items.codes)}
    return {**levels, "labels": items.labels, "rows": items.rows, "draws": items.draws}


def _content(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""The code store: a data set turned into grids of codes, tied to the tokenizer that made them.

    RUN/codes/manifest.json          tokenizer's fingerprint, K, grid, class names, file hashes
    RUN/codes/train.safetensors      codes (N, h, w), labels (N,), rows (N,); so for validation
                                     and test

Codes of another tokenizer are meaningless numbers that look right, so every reader passes the
fingerprint it expects, and a file that is not the one in the manifest is refused.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor

from vqtrain.files import read_json, sha256, write_atomic, write_json

SCHEMA = 1


class CodeSet(NamedTuple):
    """The codes of one split.

    Attributes:
        codes: `(N, h, w)` in the smallest of uint8, int16 and int32 that holds K - 1.
        labels: `(N,)` int64.
        rows: `(N,)` int64, row of the source image in the original data set.
    """

    codes: Tensor
    labels: Tensor
    rows: Tensor

    def to(self, device: torch.device | str) -> "CodeSet":
        return CodeSet(*(tensor.to(device) for tensor in self))


class CodeStore(NamedTuple):
    """Splits and what is known about all of them.

    Attributes:
        splits: code sets by split name.
        num_embeddings: K.
        num_labels: labels in use, including those of warped copies.
        class_names: names of the clean classes, in label order.
        tokenizer: fingerprint of the tokenizer that made the codes.
    """

    splits: dict[str, CodeSet]
    num_embeddings: int
    num_labels: int
    class_names: tuple[str, ...]
    tokenizer: str

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.splits["train"].codes.shape[1:]
        return height, width


def storage_dtype(num_embeddings: int) -> torch.dtype:
    """The smallest integer dtype, among those torch fully supports, that holds `0 .. K - 1`."""
    if num_embeddings <= 2**8:
        return torch.uint8
    return torch.int16 if num_embeddings <= 2**15 else torch.int32


def write(folder: Path, store: CodeStore) -> None:
    """Writes a store; the manifest comes last, so a store with a manifest is complete."""
    files: dict[str, Any] = {}
    for name, split in store.splits.items():
        codes = split.codes.to(storage_dtype(store.num_embeddings))
        content = safetensors_save(split._replace(codes=codes).to("cpu")._asdict())
        write_atomic(folder / f"{name}.safetensors", content)
        files[name] = {"images": len(codes), "bytes": len(content), "sha256": sha256(content)}
    manifest = {
        "schema": SCHEMA,
        "tokenizer": store.tokenizer,
        "K": store.num_embeddings,
        "grid": list(store.grid),
        "num_labels": store.num_labels,
        "class_names": list(store.class_names),
        "files": files,
    }
    write_json(folder / "manifest.json", manifest)


def read(folder: Path, tokenizer: str) -> CodeStore:
    """Reads and checks a store.

    Args:
        folder: what `write` was given.
        tokenizer: fingerprint that the codes must come from.

    Raises:
        FileNotFoundError: if there is no manifest or a file is missing.
        ValueError: if the codes are of another tokenizer, of another schema, or a file is damaged.
    """
    manifest = read_json(folder / "manifest.json", made_by="vqk extract")
    if manifest["schema"] != SCHEMA:
        raise ValueError(f"{folder} must have schema {SCHEMA}, got {manifest['schema']}")
    if manifest["tokenizer"] != tokenizer:
        raise ValueError(
            f"{folder} must hold codes of tokenizer {tokenizer[:12]}, got codes of tokenizer "
            f"{manifest['tokenizer'][:12]}: run `vqk extract` again"
        )
    splits = {}
    for name, facts in manifest["files"].items():
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `vqk extract` again")
        content = path.read_bytes()
        if sha256(content) != facts["sha256"]:
            raise ValueError(
                f"{path} must be the file of the manifest ({facts['bytes']} bytes), got "
                f"{len(content)} bytes with another hash: run `vqk extract` again"
            )
        splits[name] = CodeSet(**safetensors_load(content))
    return CodeStore(
        splits, manifest["K"], manifest["num_labels"], tuple(manifest["class_names"]), tokenizer
    )

"""The store as a whole: written shard by shard, resumed, and read with the right tokenizer."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vqtrain.codes.sets import CodeSet, ShardedCodes
from vqtrain.codes.shards import is_whole, read_shard, write_shard
from vqtrain.files import read_json, write_json
from vqtrain.models.tokenizer import Size

SCHEMA = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class StoreHeader:
    """Everything that decides what is in a store.

    Args:
        tokenizer: fingerprint of the tokenizer that makes the codes.
        num_embeddings: K of each level, top level first.
        grids: grid of each level.
        num_labels: labels in use, including those of warped copies.
        class_names: names of the clean classes, in label order.
        items: rows of each split.
        train_draws: draws of each training row; held-out rows are drawn once.
        shard_items: most items of a shard.
        batch_size: items encoded at a time: the last bits of a convolution can depend on it.
        data: where the items are from (`vqtrain.data.provenance`).
    """

    tokenizer: str
    num_embeddings: tuple[int, ...]
    grids: tuple[Size, ...]
    num_labels: int
    class_names: tuple[str, ...]
    items: dict[str, int]
    train_draws: int
    shard_items: int
    batch_size: int
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As it stands in the manifest; tuples are lists there."""
        content: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}))
        return content

    @staticmethod
    def from_json(content: dict[str, Any]) -> "StoreHeader":
        """Inverse of `as_json`."""
        fields = {name: content[name] for name in StoreHeader.__dataclass_fields__}
        for name in ("num_embeddings", "class_names"):
            fields[name] = tuple(fields[name])
        fields["grids"] = tuple(tuple(grid) for grid in fields["grids"])
        return StoreHeader(**fields)

    def digest(self) -> str:
        """What a shard says that it belongs to."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def shards(self) -> "Iterator[Shard]":
        """All shards, in order."""
        for split, rows in self.items.items():
            items = rows * self.train_draws if split == "train" else rows
            for number, first in enumerate(range(0, items, self.shard_items)):
                end = min(first + self.shard_items, items)
                yield Shard(split, f"{split}-{number:05d}.safetensors", rows, first, end)


class Shard(NamedTuple):
    """Items number `first` to `end - 1` of a split of `rows` rows."""

    split: str
    file: str
    rows: int
    first: int
    end: int

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Rows and draws of its items, at most `size` at a time."""
        for items in torch.arange(self.first, self.end).split(size):
            yield items % self.rows, items // self.rows


class CodeStore(NamedTuple):
    """A store that has been opened.

    Attributes:
        train: training codes, by row and draw.
        splits: the held-out splits, by name.
        header: what they are.
    """

    train: ShardedCodes
    splits: dict[str, CodeSet]
    header: StoreHeader

    @property
    def num_embeddings(self) -> tuple[int, ...]:
        """K of each level, top level first."""
        return self.header.num_embeddings

    @property
    def grids(self) -> tuple[Size, ...]:
        """Grid of each level."""
        return self.header.grids

    @property
    def num_labels(self) -> int:
        return self.header.num_labels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.header.class_names

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer that made the codes."""
        return self.header.tokenizer

    def clean_train(self, limit: int | None = None) -> CodeSet:
        """Draw 0 of every training row, or of the first `limit`."""
        count = self.train.size if limit is None else min(limit, self.train.size)
        rows = torch.arange(count)
        return self.train.batch(rows, torch.zeros_like(rows))


Encode = Callable[[str, torch.Tensor, torch.Tensor], CodeSet]


def write(folder: Path, header: StoreHeader, encode: Encode, rank: int = 0, world: int = 1) -> int:
    """Writes the shards of a store that are not there yet.

    A shard is whole or absent, and says to which store it belongs. So an interrupted call is
    repeated, by any number of processes, and goes on where it was; shards of other tokenizers or
    data are replaced. `write_manifest` completes the store.

    Args:
        folder: destination.
        header: what the store is of.
        encode: `(split, rows, draws)` to their codes, at most `header.batch_size` items.
        rank: this process writes the shards number `rank`, `rank + world`, ...
        world: processes that share the work.

    Returns:
        How many shards were written.
    """
    digest, written = header.digest(), 0
    for shard in list(header.shards())[rank::world]:
        if is_whole(folder / shard.file, digest):
            continue
        # A manifest of what was here before must not outlive it.
        (folder / MANIFEST).unlink(missing_ok=True)
        parts = [encode(shard.split, *batch) for batch in shard.batches(header.batch_size)]
        write_shard(folder / shard.file, CodeSet.cat(parts), header.num_embeddings, digest)
        written += 1
    return written


def write_manifest(folder: Path, header: StoreHeader) -> None:
    """Completes a store: only now can it be read. Shards that are not of it are deleted.

    Raises:
        ValueError: if a shard is missing or damaged.
    """
    digest, files = header.digest(), {}
    for shard in header.shards():
        path = folder / shard.file
        if not is_whole(path, digest):
            raise ValueError(f"{path} must be a whole shard: run `vqk extract` again")
        files[shard.file] = {
            "items": shard.end - shard.first,
            "bytes": path.stat().st_size,
            "sha256": _file_hash(path),
        }
    write_json(folder / MANIFEST, {**header.as_json(), "files": files})
    for path in folder.glob("*.safetensors"):
        if path.name not in files:
            path.unlink()


def read(folder: Path, tokenizer: str) -> CodeStore:
    """Opens and checks a store; training codes stay on disk, memory-mapped.

    Args:
        folder: what `write` was given.
        tokenizer: fingerprint that the codes must come from.

    Raises:
        FileNotFoundError: if there is no manifest or a file is missing.
        ValueError: if the codes are of another tokenizer, of another schema, or a file is damaged.
    """
    if not (folder / MANIFEST).is_file() and any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder / MANIFEST} is missing, so the extraction was not finished: "
            "run `vqk extract` again and it goes on where it was"
        )
    manifest = read_json(folder / MANIFEST, made_by="vqk extract")
    if manifest["schema"] != SCHEMA:
        raise ValueError(
            f"{folder} must have schema {SCHEMA}, got {manifest['schema']}: "
            "run `vqk extract` again"
        )
    if manifest["tokenizer"] != tokenizer:
        raise ValueError(
            f"{folder} must hold codes of tokenizer {tokenizer[:12]}, got codes of tokenizer "
            f"{manifest['tokenizer'][:12]}: run `vqk extract` again"
        )
    header = StoreHeader.from_json(manifest)
    shards: dict[str, list[CodeSet]] = {split: [] for split in header.items}
    for shard in header.shards():
        path = folder / shard.file
        _check_file(path, manifest["files"][shard.file])
        shards[shard.split].append(read_shard(path))
    train = ShardedCodes(
        tuple(shards.pop("train")), header.items["train"], header.train_draws, header.shard_items
    )
    splits = {name: CodeSet.cat(parts).long() for name, parts in shards.items()}
    return CodeStore(train, splits, header)


def _check_file(path: Path, facts: dict[str, Any]) -> None:
    """Refuses a shard that is not the one in the manifest."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `vqk extract` again")
    size = path.stat().st_size
    if size != facts["bytes"] or _file_hash(path) != facts["sha256"]:
        raise ValueError(
            f"{path} must be the file of the manifest ({facts['bytes']} bytes), got "
            f"{size} bytes with another hash: run `vqk extract` again"
        )


def _file_hash(path: Path) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()

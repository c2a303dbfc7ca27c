"""The code store: what was written comes back, and nothing else is accepted."""

from pathlib import Path

import pytest
import torch

from vqtrain import codes
from vqtrain.codes import CodeSet, CodeStore


def make(num_embeddings: int = 8, seed: int = 0) -> CodeStore:
    generator = torch.Generator().manual_seed(seed)

    def split(n: int) -> CodeSet:
        grids = torch.randint(num_embeddings, (n, 2, 3), generator=generator)
        return CodeSet(grids, torch.arange(n) % 4, torch.arange(n) + 100)

    splits = {"train": split(9), "validation": split(3), "test": split(4)}
    return CodeStore(splits, num_embeddings, 4, ("a", "b"), tokenizer="f" * 64)


@pytest.mark.parametrize(
    ("num_embeddings", "dtype"),
    [(256, torch.uint8), (257, torch.int16), (32768, torch.int16), (32769, torch.int32)],
)
def test_a_store_comes_back_in_the_smallest_dtype(
    tmp_path: Path, num_embeddings: int, dtype: torch.dtype
) -> None:
    store = make(num_embeddings)
    store.splits["train"].codes[0, 0, 0] = num_embeddings - 1
    codes.write(tmp_path, store)
    back = codes.read(tmp_path, store.tokenizer)
    assert back.splits["train"].codes.dtype == dtype
    for name, split in store.splits.items():
        assert torch.equal(back.splits[name].codes.long(), split.codes)
        assert torch.equal(back.splits[name].labels, split.labels)
        assert torch.equal(back.splits[name].rows, split.rows)
    assert back._replace(splits={}) == store._replace(splits={})
    assert back.grid == (2, 3)


def test_codes_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    codes.write(tmp_path, make())
    with pytest.raises(
        ValueError, match="must hold codes of tokenizer 000000000000, got codes of"
    ):
        codes.read(tmp_path, "0" * 64)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    store = make()
    codes.write(tmp_path, store)
    path = tmp_path / "validation.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ValueError, match=r"validation.safetensors must be the file of the manifest"
    ):
        codes.read(tmp_path, store.tokenizer)


def test_a_file_of_another_store_is_refused(tmp_path: Path) -> None:
    store = make()
    codes.write(tmp_path / "one", store)
    codes.write(tmp_path / "two", make(seed=1))
    other = (tmp_path / "two" / "test.safetensors").read_bytes()
    (tmp_path / "one" / "test.safetensors").write_bytes(other)
    with pytest.raises(ValueError, match="bytes with another hash"):
        codes.read(tmp_path / "one", store.tokenizer)


def test_a_missing_store_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"manifest.json is missing: run `vqk extract` first"
    ):
        codes.read(tmp_path, "f" * 64)
    store = make()
    codes.write(tmp_path, store)
    (tmp_path / "test.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"test.safetensors is missing: run `vqk extract`"):
        codes.read(tmp_path, store.tokenizer)

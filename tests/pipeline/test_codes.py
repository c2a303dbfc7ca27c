"""The code store: what was written comes back, whatever is cut short goes on, and nothing else
is accepted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtrain import codes
from vqtrain.codes import CodeSet, ExtractConfig, StoreHeader

HEADER = StoreHeader(
    tokenizer="f" * 64,
    num_embeddings=(8, 300),
    grids=((2,), (2, 3)),
    num_labels=4,
    class_names=("a", "b"),
    items={"train": 7, "validation": 3, "test": 4},
    train_draws=3,
    shard_items=5,
    batch_size=2,
    data={"name": "invented", "size": [4, 6]},
)


def encode(split: str, rows: Tensor, draws: Tensor) -> CodeSet:
    """Codes that are a function of split, row and draw."""
    base = rows * 31 + draws * 7 + len(split)
    levels = (base[:, None] + torch.arange(2), base[:, None, None] + torch.arange(6).view(2, 3))
    return CodeSet((levels[0] % 8, levels[1] * 13 % 300), rows % 4, rows + 100, draws)


def write(folder: Path, header: StoreHeader = HEADER) -> int:
    written = codes.write(folder, header, encode)
    codes.write_manifest(folder, header)
    return written


def assert_same(got: CodeSet, expected: CodeSet) -> None:
    for one, other in zip((*got.codes, *got[1:]), (*expected.codes, *expected[1:]), strict=True):
        assert one.dtype == torch.int64
        assert torch.equal(one, other)


def test_a_store_comes_back_level_by_level_and_draw_by_draw(tmp_path: Path) -> None:
    assert write(tmp_path) == 5 + 1 + 1  # 21 training items in shards of 5
    store = codes.read(tmp_path, HEADER.tokenizer)
    assert store.header == HEADER
    assert (store.num_embeddings, store.grids) == (HEADER.num_embeddings, HEADER.grids)
    assert (store.train.size, store.train.draws) == (7, 3)
    rows = torch.tensor([6, 0, 3, 3, 5, 0, 1])
    draws = torch.tensor([2, 0, 1, 1, 0, 2, 2])
    assert_same(store.train.batch(rows, draws), encode("train", rows, draws))
    for name, count in (("validation", 3), ("test", 4)):
        every, first = torch.arange(count), torch.zeros(count, dtype=torch.int64)
        assert_same(store.splits[name], encode(name, every, first))


def test_a_batch_of_nothing_is_empty(tmp_path: Path) -> None:
    write(tmp_path)
    nothing = torch.zeros(0, dtype=torch.int64)
    got = codes.read(tmp_path, HEADER.tokenizer).train.batch(nothing, nothing)
    assert_same(got, encode("train", nothing, nothing))


def test_clean_codes_are_those_of_draw_0(tmp_path: Path) -> None:
    write(tmp_path)
    store = codes.read(tmp_path, HEADER.tokenizer)
    rows = torch.arange(4)
    assert_same(store.clean_train(4), encode("train", rows, torch.zeros_like(rows)))
    assert len(store.clean_train().rows) == 7


@pytest.mark.parametrize(
    ("rows", "draws", "message"),
    [
        (7, 0, "rows must be between 0 and 6, got 7"),
        (0, 3, "draws must be between 0 and 2, got 3"),
    ],
)
def test_items_out_of_range_are_refused(
    tmp_path: Path, rows: int, draws: int, message: str
) -> None:
    write(tmp_path)
    train = codes.read(tmp_path, HEADER.tokenizer).train
    with pytest.raises(ValueError, match=message):
        train.batch(torch.tensor([rows]), torch.tensor([draws]))


@pytest.mark.parametrize(
    ("num_embeddings", "dtype"),
    [(256, torch.uint8), (257, torch.uint16), (65536, torch.uint16), (65537, torch.int32)],
)
def test_codes_are_stored_in_the_smallest_dtype_that_holds_them(
    tmp_path: Path, num_embeddings: int, dtype: torch.dtype
) -> None:
    header = replace(HEADER, num_embeddings=(8, num_embeddings))

    def highest(split: str, rows: Tensor, draws: Tensor) -> CodeSet:
        items = encode(split, rows, draws)
        return items._replace(codes=(items.codes[0], items.codes[1] * 0 + num_embeddings - 1))

    codes.write(tmp_path, header, highest)
    codes.write_manifest(tmp_path, header)
    store = codes.read(tmp_path, HEADER.tokenizer)
    assert [level.dtype for level in store.train.shards[0].codes] == [torch.uint8, dtype]
    assert bool((store.clean_train().codes[1] == num_embeddings - 1).all())


def test_an_interrupted_store_keeps_its_whole_shards_and_makes_the_others_again(
    tmp_path: Path,
) -> None:
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "train-00001.safetensors").unlink()
    damaged = bytearray(before["train-00003.safetensors"])
    damaged[-9] ^= 1
    (tmp_path / "train-00003.safetensors").write_bytes(damaged)
    (tmp_path / "test-00000.safetensors").write_bytes(before["test-00000.safetensors"][:-4])
    with pytest.raises(FileNotFoundError, match="the extraction was not finished"):
        codes.read(tmp_path, HEADER.tokenizer)
    assert write(tmp_path) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_finished_store_is_not_made_again(tmp_path: Path) -> None:
    write(tmp_path)
    assert write(tmp_path) == 0


@pytest.mark.parametrize("change", [{"tokenizer": "0" * 64}, {"data": {"name": "other"}}])
def test_shards_of_another_tokenizer_or_of_other_data_are_replaced(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write(tmp_path)
    other = replace(HEADER, items={"train": 2, "validation": 3, "test": 4}, **change)  # type: ignore[arg-type]
    assert write(tmp_path, other) == 4
    # What the new store has no place for is gone.
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    assert codes.read(tmp_path, other.tokenizer).header == other


def test_processes_share_the_shards(tmp_path: Path) -> None:
    assert codes.write(tmp_path, HEADER, encode, rank=1, world=2) == 3
    with pytest.raises(ValueError, match=r"train-00000.safetensors must be a whole shard"):
        codes.write_manifest(tmp_path, HEADER)
    assert codes.write(tmp_path, HEADER, encode, rank=0, world=2) == 4
    codes.write_manifest(tmp_path, HEADER)
    assert codes.read(tmp_path, HEADER.tokenizer).header == HEADER


def test_codes_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(
        ValueError, match="must hold codes of tokenizer 000000000000, got codes of"
    ):
        codes.read(tmp_path, "0" * 64)


@pytest.mark.parametrize("name", ["validation-00000", "train-00004"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ValueError, match=rf"{name}.safetensors must be the file of the manifest .*vqk extract"
    ):
        codes.read(tmp_path, HEADER.tokenizer)


def test_a_file_of_another_store_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two", replace(HEADER, data={"name": "other"}))
    other = (tmp_path / "two" / "test-00000.safetensors").read_bytes()
    (tmp_path / "one" / "test-00000.safetensors").write_bytes(other)
    with pytest.raises(ValueError, match="bytes with another hash"):
        codes.read(tmp_path / "one", HEADER.tokenizer)


def test_a_missing_store_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"manifest.json is missing: run `vqk extract` first"
    ):
        codes.read(tmp_path, "f" * 64)
    write(tmp_path)
    (tmp_path / "test-00000.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"test-00000.safetensors is missing: run `vqk extract`"
    ):
        codes.read(tmp_path, HEADER.tokenizer)


def test_draws_to_encode_are_all_there_are_unless_there_is_no_end_of_them() -> None:
    assert [ExtractConfig().train_draws(13), ExtractConfig().train_draws(None)] == [13, 1]
    assert [ExtractConfig(draws=4).train_draws(x) for x in (13, None)] == [4, 4]
    with pytest.raises(ValueError, match=r"extract.draws must be at most 3, .* got 4"):
        ExtractConfig(draws=4).train_draws(3)
    with pytest.raises(ValueError, match="shard_items must be at least 1, got 0"):
        ExtractConfig(shard_items=0)

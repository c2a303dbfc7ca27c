"""Extraction: codes of the right items, checked by decoding; a full disk costs no shard."""

import copy
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from vqtrain import checkpoint, codes
from vqtrain.codes import ExtractConfig, StoreHeader
from vqtrain.codes.shards import write_shard
from vqtrain.config import RunConfig, save
from vqtrain.data import DataConfig, load_dataset, provenance
from vqtrain.extract import encode_items, extract, items_of, verify
from vqtrain.files import read_json
from vqtrain.models import VQVAE, VQVAEConfig
from vqtrain.models.tokenizer import Codes


class Prepared(NamedTuple):
    config: RunConfig
    model: VQVAE
    folder: Path
    store: dict[str, bytes]


def make_run(folder: Path, data: DataConfig, **options: Any) -> tuple[RunConfig, VQVAE]:
    """A run folder with a tokenizer that has been trained for a few steps."""
    config = RunConfig(threads=1, device="cpu", data=data, extract=ExtractConfig(**options))
    torch.manual_seed(0)
    sizes = VQVAEConfig(hidden=8, residual_hidden=4, num_embeddings=16, embedding_dim=4)
    dataset = load_dataset(data, config.seed)
    model, some = VQVAE(sizes, dataset.signal), dataset.clean_train(200)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        optimizer.zero_grad()
        model(some.x, some.labels).loss.backward()
        optimizer.step()
    model.eval()
    facts = {"data": provenance(data, config.seed), "step": 0}
    checkpoint.save(folder / "tokenizer", model, facts)
    save(config, folder)
    return config, model


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A run on digits and its store, whose extraction nothing disturbed."""
    folder = tmp_path_factory.mktemp("prepared")
    config, model = make_run(folder, DataConfig(warped_copies=1), shard_items=120)
    extract(config, folder)
    return Prepared(config, model, folder, files(folder))


@pytest.fixture
def extracted(prepared: Prepared, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(prepared.folder, tmp_path / "run"))


def header_of(folder: Path) -> StoreHeader:
    return StoreHeader.from_json(read_json(folder / "codes" / "manifest.json", made_by="-"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "codes").iterdir()}


def test_the_store_holds_the_codes_of_every_item_and_draw(prepared: Prepared) -> None:
    config, model, folder, _ = prepared
    store = codes.read(folder / "codes", checkpoint.fingerprint(model))
    data = load_dataset(config.data, config.seed)
    assert (store.train.size, store.train.draws, store.num_labels) == (1237, 2, 20)
    rows, draws = torch.tensor([3, 1236, 0]), torch.tensor([1, 0, 1])
    batch, items = store.train.batch(rows, draws), data.train.batch(rows, draws)
    assert torch.equal(batch.codes[0], model.encode(items.x)[0])
    assert torch.equal(batch.labels, items.labels)
    assert torch.equal(batch.rows, items.rows)
    for name, split in store.splits.items():
        held_out = getattr(data, name)
        assert torch.equal(split.codes[0], model.encode(held_out.x)[0])
        assert torch.equal(split.rows, held_out.rows)


def test_a_set_without_end_is_encoded_as_often_as_asked_for(tmp_path: Path) -> None:
    data = DataConfig(name="moving-digits", train_size=24, held_out=24)
    config, model = make_run(tmp_path, data, draws=3, batch_size=10)
    extract(config, tmp_path)
    train = codes.read(tmp_path / "codes", checkpoint.fingerprint(model)).train
    assert (train.size, train.draws) == (24, 3)
    rows = torch.arange(24)
    drawn = [train.batch(rows, torch.full_like(rows, draw)).codes[0] for draw in range(3)]
    assert all(bool((drawn[0] != other).any()) for other in drawn[1:])


def test_a_full_disk_loses_no_shard_that_was_written(prepared: Prepared, extracted: Path) -> None:
    first, second = "train-00017.safetensors", "validation-00000.safetensors"
    for name in (first, second):
        (extracted / "codes" / name).unlink()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(prepared.store[first]) - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            extract(prepared.config, extracted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert set(files(extracted)) == set(prepared.store) - {first, second, "manifest.json"}
    extract(prepared.config, extracted)
    assert files(extracted) == prepared.store


def test_codes_of_an_earlier_tokenizer_are_replaced(prepared: Prepared, extracted: Path) -> None:
    model = copy.deepcopy(prepared.model)
    with torch.no_grad():
        next(model.encoder.parameters()).mul_(-1)
    facts = {"data": provenance(prepared.config.data, prepared.config.seed), "step": 1}
    checkpoint.save(extracted / "tokenizer", model, facts)
    extract(prepared.config, extracted)
    after = files(extracted)
    assert all(after[name] != content for name, content in prepared.store.items())
    codes.read(extracted / "codes", checkpoint.fingerprint(model))


def test_more_draws_than_there_are_cannot_be_asked_for(
    prepared: Prepared, extracted: Path
) -> None:
    config = replace(prepared.config, extract=ExtractConfig(draws=3))
    with pytest.raises(ValueError, match=r"extract.draws must be at most 2, .* got 3"):
        extract(config, extracted)
    assert files(extracted) == prepared.store


def test_codes_of_other_items_are_noticed(prepared: Prepared, extracted: Path) -> None:
    config, model, _, _ = prepared
    header = header_of(extracted)
    shard = next(shard for shard in header.shards() if shard.split == "test")
    rows = torch.arange(shard.end)
    items = items_of(load_dataset(config.data, config.seed), "test", rows, rows * 0)
    other = encode_items(model, items._replace(x=items.x.flip(0)), rows * 0)
    path = extracted / "codes" / shard.file
    write_shard(path, other, header.num_embeddings, header.digest())
    with pytest.raises(ValueError, match=r"test-00000.safetensors must hold the codes of its it"):
        extract(config, extracted)


class Forgetful(VQVAE):
    """A tokenizer whose decoder does not look at the codes it is given."""

    def decode(self, codes: Codes, labels: torch.Tensor) -> torch.Tensor:
        return super().decode(tuple(torch.zeros_like(level) for level in codes), labels)


def test_a_decoder_that_disagrees_with_the_forward_pass_is_noticed(prepared: Prepared) -> None:
    config, model, folder, _ = prepared
    header, data = header_of(folder), load_dataset(config.data, config.seed)
    shard = next(header.shards())
    verify(folder / "codes", header, shard, model, data)
    wrong = Forgetful(model.config, model.signal).eval()
    wrong.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match=r"decoding the codes .* must give the likelihood"):
        verify(folder / "codes", header, shard, wrong, data)

"""What `vqk eval` makes of samples and reconstructions, on data whose answers are known."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain.codes import CodeSet, CodeStore, ShardedCodes
from vqtrain.config import RunConfig, TokenizerConfig
from vqtrain.config.sections import EvalConfig
from vqtrain.data import DataConfig, Dataset, Split, StoredTrainSet, load_dataset
from vqtrain.extract import store_header
from vqtrain.measure.bits import bits_warnings
from vqtrain.measure.reconstructions import closeness, measure_reconstructions, read_by_rule
from vqtrain.measure.samples import measure_samples, samples_warnings
from vqtrain.measure.subject import Subject
from vqtrain.metrics.patches import through_patches
from vqtrain.models import VQVAE, Signal, VQVAEConfig
from vqtrain.train_tokenizer import make_tokenizer


def config_of(name: str) -> RunConfig:
    data = DataConfig(name=name, train_size=240, held_out=240)
    return RunConfig(data=data, eval=EvalConfig(bootstrap=20))


def dataset_of(name: str) -> Dataset:
    return load_dataset(config_of(name).data, 0)


def measured(
    run: Path, name: str, dataset: Dataset, samples: dict[str, torch.Tensor]
) -> dict[str, Any]:
    skipped: dict[str, str] = {}
    found = measure_samples(run, config_of(name), dataset, samples, skipped)
    return {**found, "skipped": skipped}


@pytest.mark.parametrize("name", ["digits", "shapes", "tones", "moving-digits"])
def test_real_items_given_as_samples_pass_every_question(tmp_path: Path, name: str) -> None:
    dataset = dataset_of(name)
    real = dataset.validation
    samples = {"labels": real.labels, "means": real.x.float(), "drawn": real.x}
    m = measured(tmp_path, name, dataset, samples)
    assert m["skipped"] == {}
    assert m["classifier_on_real"] > 0.4
    assert m["label_agreement"] >= 0.9 * m["classifier_on_real"]
    distance = m["local_distances"]["fd_local"]
    assert distance["interval"][0] < distance["floor_interval"][1]
    assert m["duplicates_of_train"] == 0
    assert samples_warnings(m) == []
    for share in m.get("rules", {}).values():
        assert share > 0.95


def test_copies_of_training_items_are_a_warning(tmp_path: Path) -> None:
    dataset = dataset_of("digits")
    train = dataset.clean_train(240)
    samples = {"labels": train.labels, "means": train.x.float(), "drawn": train.x}
    m = measured(tmp_path, "digits", dataset, samples)
    assert m["duplicates_of_train"] == 1
    assert "may be memorised" in samples_warnings(m)[0]


def test_without_classes_or_draws_the_rest_is_measured_and_the_reasons_are_kept(
    tmp_path: Path,
) -> None:
    dataset = dataset_of("photos")
    crops = dataset.validation.x[:60]
    samples = {"labels": torch.zeros(60, dtype=torch.int64), "means": crops.float()}
    m = measured(tmp_path, "photos", dataset, samples)
    assert set(m["skipped"]) == {"cas", "neighbours"}
    assert m["fd_local"] > 0


def test_training_items_of_one_class_train_no_classifier(tmp_path: Path) -> None:
    dataset, items = dataset_of("digits"), dataset_of("digits").clean_train()
    one = StoredTrainSet(items.take((items.labels == 3).nonzero().flatten()))
    real = dataset.validation
    samples = {"labels": real.labels, "means": real.x.float()}
    m = measured(tmp_path, "digits", dataset._replace(train=one), samples)
    assert m["skipped"]["cas"] == "the training items measured are all of one class"


def reconstructed(
    run: Path, x: Tensor, levels: int, **sizes: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """What is measured of an untrained VQ-VAE that sees the same pictures in every split."""
    split = Split(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)))
    dataset = Dataset(StoredTrainSet(split), split, split, Signal((8, 8), 1, levels), ("item",))
    config = RunConfig(tokenizer=TokenizerConfig(vqvae=VQVAEConfig(**sizes)))  # type: ignore[arg-type]
    tokenizer = make_tokenizer(config, dataset.signal)
    assert isinstance(tokenizer, VQVAE)
    tokenizer(x, split.labels)  # k-means fills the codebook
    codes = CodeSet(tokenizer.eval().encode(x), split.labels, split.rows, split.rows)
    header = store_header(config, dataset, tokenizer, fingerprint="")
    subject = Subject(
        run=run,
        config=config,
        dataset=dataset,
        tokenizer=tokenizer,
        priors=(),
        store=CodeStore(ShardedCodes((codes,), len(x), 1, len(x)), {"test": codes}, header),
        samples={},
        device=torch.device("cpu"),
        best_steps={},
    )
    skipped: dict[str, str] = {}
    return measure_reconstructions(subject, skipped), skipped


def noise(items: int, levels: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(levels, (items, 1, 8, 8), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("items", "levels", "reason"),
    [
        (8, 256, "needs 512 training patches, one per code, got 128"),
        (60, 2, "as many patches as there are codes keep everything"),
    ],
)
def test_reconstructions_are_measured_where_patches_give_no_floor(
    tmp_path: Path, items: int, levels: int, reason: str
) -> None:
    m, skipped = reconstructed(tmp_path, noise(items, levels), levels, num_embeddings=512)
    assert skipped == {"psnr_patches": reason}
    assert m["psnr"] > 0
    assert "psnr_patches" not in m


def test_the_floor_of_several_codes_in_a_cell_spends_as_many(tmp_path: Path) -> None:
    x = noise(16, 256)
    m, _ = reconstructed(tmp_path, x, 256, num_embeddings=8, code_maps=2)
    decoded = through_patches(x, x, sides=(2, 2), sizes=(8, 8), seed=0)
    error = decoded.clamp(0, 255) - x
    floor = 10 * torch.log10(255**2 / error.square().mean())
    assert m["psnr_patches"] == pytest.approx(floor.item(), rel=1e-5)


def test_psnr_of_photographs_is_told_picture_by_picture() -> None:
    dataset = dataset_of("photos")
    test = dataset.test
    size = torch.where(test.rows == test.rows[0], 8.0, 2.0)[:, None, None, None]
    decoded = test.x + torch.where(test.x < 128, size, -size)
    m = closeness("photos", dataset, decoded)
    worse = m["psnr_by_group"].pop("chelsea")
    assert set(m["psnr_by_group"]) == {"china", "rocket"}
    for better in m["psnr_by_group"].values():
        assert better == pytest.approx(worse + 12.04, abs=0.01)
    assert closeness("shapes", dataset, decoded)["psnr_by_group"] == {}


def test_a_rule_reads_reconstructions_and_real_items() -> None:
    dataset = dataset_of("shapes")
    m = read_by_rule("shapes", dataset, dataset.test.x.float().flip(0))
    assert min(m["rules_real"].values()) > 0.95
    assert max(m["rules_decoded"].values()) < 0.5
    assert read_by_rule("photos", dataset, dataset.test.x) == {}


def test_a_prior_that_learned_nothing_is_a_warning() -> None:
    def found(
        prior: float | None, unigram: float, gap: float = 1.0, usage: float = 1.0
    ) -> list[str]:
        level = {"usage": usage, "usage_ceiling": 1.0}
        m = {"prior_bpd": prior, "unigram_bpd": unigram, "uniform_bpd": 0.75, "levels": [level]}
        m["conditioning_gap_bits_per_image"] = gap
        return [text.split(" must ")[0] for text in bits_warnings(m)]

    assert found(prior=0.5, unigram=0.7) == []
    assert found(prior=None, unigram=0.7) == []
    assert found(prior=0.7, unigram=0.7) == ["prior_bpd"]
    assert found(prior=0.5, unigram=0.75) == ["unigram_bpd"]
    assert found(prior=float("nan"), unigram=0.7) == ["prior_bpd"]
    assert found(prior=0.5, unigram=0.7, gap=0.05) == ["conditioning gap"]
    assert found(prior=0.5, unigram=0.7, usage=0.4) == ["usage of level 0"]

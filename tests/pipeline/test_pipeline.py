"""`GenerativePipeline` and pretrained folders: what is saved comes back, and fits together."""

import ast
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vqtrain
from vqtrain import checkpoint
from vqtrain.models import TOKENIZERS, VAE, VQVAE, Identity, VQVAEConfig
from vqtrain.models.tokenizer import Signal, SignalModel, Tokenizer
from vqtrain.pipeline import GenerativePipeline
from vqtrain.priors import PRIORS, GatedPixelCNN, PixelCNNConfig
from vqtrain.priors.prior import CodeSpace, Prior

SIGNAL = Signal(size=(8, 8), channels=1, levels=17, num_labels=10)
SPACE = CodeSpace(num_embeddings=8, grid=(4, 4), num_labels=10)
NAMES = tuple("0123456789")
LABELS = torch.arange(10)


def scrambled(model: nn.Module, seed: int) -> nn.Module:
    """A model whose weights no constructor gives, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model.eval()


def tiny(seed: int = 0) -> GenerativePipeline:
    torch.manual_seed(seed)
    tokenizer = VQVAE(VQVAEConfig(hidden=8, residual_hidden=8, embedding_dim=4), SIGNAL)
    images = torch.randint(17, (64, 1, 8, 8))
    tokenizer.train()(images, torch.zeros(64, dtype=torch.int64))  # k-means fills the codebook
    prior = scrambled(GatedPixelCNN(PixelCNNConfig(width=8, layers=2), SPACE), seed)
    return GenerativePipeline(tokenizer, [prior], NAMES)


@pytest.fixture(scope="module")
def pipeline() -> GenerativePipeline:
    return tiny()


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(17, (10, 1, 8, 8), generator=generator, dtype=torch.uint8)


def weights_equal(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("kind", [*TOKENIZERS.values(), VAE])
def test_a_tokenizer_comes_back_as_it_was(kind: type[SignalModel], tmp_path: Path) -> None:
    model = Identity(SIGNAL) if kind is Identity else kind(kind.config_type(), SIGNAL)
    scrambled(model, 0).save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    back = kind.from_pretrained(tmp_path)
    assert type(back) is kind
    assert back.description() == model.description()
    assert weights_equal(back, model)
    assert not back.training


@pytest.mark.parametrize("kind", PRIORS.values())
def test_the_base_class_finds_the_prior_that_was_saved(kind: type[Prior], tmp_path: Path) -> None:
    model = scrambled(kind(kind.config_type(), SPACE), 0)
    model.facts = {"step": 7}
    model.save_pretrained(tmp_path)
    back = Prior.from_pretrained(tmp_path)
    assert type(back) is kind
    assert weights_equal(back, model)
    assert back.facts == {"step": 7}


def test_a_model_of_another_family_is_refused(
    pipeline: GenerativePipeline, tmp_path: Path
) -> None:
    pipeline.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must hold one of .*GatedPixelCNN.*, got 'VQVAE'"):
        Prior.from_pretrained(tmp_path)


def test_a_pipeline_comes_back_and_draws_the_same(
    pipeline: GenerativePipeline, images: Tensor, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    back = GenerativePipeline.from_pretrained(tmp_path)
    assert back.class_names == NAMES
    mine, theirs = (p.sample(LABELS, torch.Generator().manual_seed(3)) for p in (pipeline, back))
    assert torch.equal(mine.codes[0], theirs.codes[0])
    assert torch.equal(mine.drawn, theirs.drawn)
    assert torch.equal(mine.means, theirs.means)
    assert torch.equal(back.reconstruct(images, LABELS), pipeline.reconstruct(images, LABELS))


def test_the_seed_and_the_labels_decide_a_sample(pipeline: GenerativePipeline) -> None:
    def codes(seed: int, labels: Tensor) -> Tensor:
        return pipeline.sample(labels, torch.Generator().manual_seed(seed)).codes[0]

    assert torch.equal(codes(0, LABELS), codes(0, LABELS))
    assert not torch.equal(codes(0, LABELS), codes(1, LABELS))
    assert not torch.equal(codes(0, LABELS), codes(0, LABELS.flip(0)))


def test_bits_are_those_of_the_parts(pipeline: GenerativePipeline, images: Tensor) -> None:
    bits = pipeline.bits_per_dim(images, LABELS)
    tokenizer, prior = pipeline.tokenizer, pipeline.priors[0]
    with torch.no_grad():
        (codes,) = tokenizer.encode(images)
        log_pixels = tokenizer.likelihood.log_prob(tokenizer.decode((codes,), LABELS), images)
        log_codes = prior(codes, LABELS).log_softmax(1).gather(1, codes[:, None])
    nats = -log_pixels.flatten(1).sum(1) - log_codes.flatten(1).sum(1)
    torch.testing.assert_close(bits.total, nats / torch.tensor(2.0).log() / 64)
    torch.testing.assert_close(bits.total, bits.reconstruction + bits.codes[0])


def test_a_completion_keeps_what_is_known_and_draws_the_rest(
    pipeline: GenerativePipeline, images: Tensor
) -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:5] = True  # two rows of cells, and half of a third, which does not count
    completed = pipeline.complete(images, LABELS, mask, torch.Generator().manual_seed(0))
    given, (codes,) = pipeline.tokenizer.encode(images)[0], completed.codes
    assert torch.equal(codes[:, :2], given[:, :2])
    assert (codes[:, 2:] != given[:, 2:]).any()
    with pytest.raises(ValueError, match=r"mask must have shape \(8, 8\), got \(4, 4\)"):
        pipeline.complete(images, LABELS, mask[:4, :4], torch.Generator())


def identity() -> Tokenizer:
    return Identity(Signal(size=(8, 8), channels=3, levels=4))


def two_maps() -> Tokenizer:
    sizes = VQVAEConfig(hidden=4, residual_hidden=4, embedding_dim=4, code_maps=2)
    model = VQVAE(sizes, Signal(size=(8, 8), channels=3, levels=4))
    model.train()(torch.randint(4, (8, 3, 8, 8)), torch.zeros(8, dtype=torch.int64))
    return model


@pytest.mark.parametrize("make", [identity, two_maps])
def test_codes_that_share_a_cell_are_kept_together(make: Callable[[], Tokenizer]) -> None:
    torch.manual_seed(0)
    tokenizer = make()
    space = CodeSpace(tokenizer.codebook_sizes[0], tokenizer.code_grids[0])
    prior = scrambled(GatedPixelCNN(PixelCNNConfig(width=4, layers=1), space), 0)
    assert isinstance(prior, Prior)
    pipeline = GenerativePipeline(tokenizer, [prior], ["item"])
    x, labels = torch.randint(4, (4, 3, 8, 8)), torch.zeros(4, dtype=torch.int64)
    mask = torch.arange(8)[:, None].expand(8, 8) < 4
    (codes,) = pipeline.complete(x, labels, mask, torch.Generator().manual_seed(0)).codes
    half = space.grid[0] // 2
    given = tokenizer.encode(x)[0]
    assert torch.equal(codes[:, :half], given[:, :half])
    assert (codes[:, half:] != given[:, half:]).any()


def test_a_prior_of_other_codes_is_refused(pipeline: GenerativePipeline) -> None:
    space = CodeSpace(num_embeddings=9, grid=(4, 4), num_labels=10)
    prior = GatedPixelCNN(PixelCNNConfig(width=8, layers=2), space)
    with pytest.raises(ValueError, match=r"priors\[0\] must model .*num_embeddings=8"):
        GenerativePipeline(pipeline.tokenizer, [prior], NAMES)
    with pytest.raises(ValueError, match="priors must be one for each of 1 levels, got 0"):
        GenerativePipeline(pipeline.tokenizer, [], NAMES)


def test_a_prior_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    first, second = tiny(0), tiny(1)
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    prior = Prior.from_pretrained(tmp_path / "second" / "prior-0")
    with pytest.raises(ValueError, match=r"priors\[0\] must model codes of tokenizer"):
        GenerativePipeline(first.tokenizer, [prior], NAMES)
    shutil.copytree(
        tmp_path / "second" / "prior-0", tmp_path / "first" / "prior-0", dirs_exist_ok=True
    )
    with pytest.raises(ValueError, match=r"must hold the models that pipeline\.json names"):
        GenerativePipeline.from_pretrained(tmp_path / "first")


def test_a_part_that_is_missing_is_named(pipeline: GenerativePipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    (tmp_path / "prior-0" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="prior-0"):
        GenerativePipeline.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a folder or a hub name"):
        GenerativePipeline.from_pretrained(tmp_path / "nowhere" / "at" / "all")


def test_a_mistyped_folder_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # asking it would be another error
    with pytest.raises(FileNotFoundError, match=r"runs is one here, got 'runs/typo'"):
        GenerativePipeline.from_pretrained("runs/typo")


def test_a_repository_of_the_hub_is_a_folder_that_is_downloaded(
    pipeline: GenerativePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    commit = "0" * 40
    repository = tmp_path / "models--someone--digits"
    pipeline.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    # No network in a test: the library finds what an earlier download left in its cache.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    back = GenerativePipeline.from_pretrained("someone/digits")
    assert weights_equal(back, pipeline)


def test_without_the_extra_a_hub_name_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vqkernels\[hub\]'"):
        GenerativePipeline.from_pretrained("someone/digits")


def test_pipeline_json_says_what_belongs_together(
    pipeline: GenerativePipeline, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "pipeline.json").read_text())
    assert content["tokenizer"] == checkpoint.fingerprint(pipeline.tokenizer)
    assert content["priors"] == [checkpoint.fingerprint(pipeline.priors[0])]
    assert content["class_names"] == list(NAMES)


def test_nothing_in_the_package_pickles() -> None:
    """A file of weights must not be able to run code."""
    for path in Path(vqtrain.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                call = f"{node.value.id}.{node.attr}"
                assert call not in ("torch.save", "torch.load"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(names), path

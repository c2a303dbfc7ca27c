"""Every preset can be trained: its models are built as it says and take a step on random data."""

import pytest
import torch
from torch import nn

from vqtrain.config import RunConfig, locate, presets, read
from vqtrain.data import load_dataset
from vqtrain.data.config import DataConfig
from vqtrain.models.tokenizer import Signal, Tokenizer
from vqtrain.priors.prior import CodeSpace
from vqtrain.train_prior import make_prior
from vqtrain.train_tokenizer import make_tokenizer

# What the data sets of the papers are, which nothing downloads here.
PAPERS = {
    "cifar-paper": Signal(size=(32, 32), channels=3, levels=256, num_labels=10),
    "imagenet128-paper": Signal(size=(128, 128), channels=3, levels=256, num_labels=1000),
    "vctk-paper": Signal(size=(40960,), channels=1, levels=256, num_labels=109),
}
# Axes are cut to this many codes: models keep their width and depth, a step takes no minute.
MOST_CODES = 4


def step(model: nn.Module, loss: torch.Tensor) -> None:
    """One step of plain descent; it must move the weights and leave them finite."""
    before = [weight.detach().clone() for weight in model.parameters()]
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(weight.isfinite().all() for weight in model.parameters())


def shrunk(config: RunConfig, signal: Signal) -> Signal:
    grid = make_tokenizer(config, signal).code_grids[-1][: signal.ndim]
    cells = [length // codes for length, codes in zip(signal.size, grid, strict=True)]
    size = tuple(
        min(length, cell * MOST_CODES) for length, cell in zip(signal.size, cells, strict=True)
    )
    return Signal(size, signal.channels, signal.levels, signal.num_labels)


@pytest.mark.parametrize("preset", presets())
def test_a_preset_takes_one_step(preset: str) -> None:
    config = read(locate(preset).config)
    whole = PAPERS[preset] if preset in PAPERS else load_dataset(config.data, 0).signal
    signal = shrunk(config, whole)
    torch.manual_seed(0)
    x = torch.randint(signal.levels, (2, signal.channels, *signal.size), dtype=torch.uint8)
    labels = torch.arange(2) % signal.num_labels
    tokenizer: Tokenizer = make_tokenizer(config, signal).train()
    step(tokenizer, tokenizer(x, labels).loss)
    with torch.no_grad():
        codes = tokenizer.eval().encode(x)
    sizes = tuple(zip(tokenizer.codebook_sizes, tokenizer.code_grids, strict=True))
    for level, (size, grid) in enumerate(sizes):
        space = CodeSpace(size, grid, signal.num_labels, sizes[:level])
        prior = make_prior(config.prior_of(level), space).train()
        step(prior, prior.loss(codes[level], labels, codes[:level]))


@pytest.mark.parametrize("preset", PAPERS)
def test_the_size_in_a_papers_preset_is_the_datas(preset: str) -> None:
    assert read(locate(preset).config).data.size == PAPERS[preset].size


@pytest.mark.parametrize("preset", PAPERS)
def test_a_papers_preset_marks_every_hyper_parameter(preset: str) -> None:
    """As the paper's or as unverified, but for how often to look and which model it is."""
    unmarked = [
        line
        for line in locate(preset).config.read_text().splitlines()
        if ":" in line and not line.lstrip().startswith("#")
        if "# paper" not in line and "# unverified" not in line
    ]
    names = {line.split(":")[0].strip() for line in unmarked}
    assert names <= {
        *("data", "tokenizer", "prior", "vqvae", "pixelcnn", "kind", "name", "size"),
        *("validate_every", "class_conditional", "held_out_share", "held_out_limit"),
    }


def test_bundled_presets_need_no_download() -> None:
    for preset in set(presets()) - set(PAPERS):
        assert ":" not in read(locate(preset).config).data.name
    assert DataConfig().name == "digits"

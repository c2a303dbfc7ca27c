"""What all tokenizers promise, in one, two and three dimensions."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain.models import (
    TOKENIZERS,
    VQVAE,
    VQVAE2,
    Identity,
    NoLikelihoodError,
    Signal,
    Tokenizer,
    VQVAE2Config,
    VQVAEConfig,
)

SMALL: dict[str, Any] = {"hidden": 8, "residual_hidden": 4, "embedding_dim": 4, "dropout": 0.3}
SIZES = [(16,), (8, 12), (4, 4, 8)]
MAKERS = {
    "vqvae": lambda signal: VQVAE(VQVAEConfig(**SMALL), signal),
    "vqvae dilated": lambda signal: VQVAE(
        VQVAEConfig(**SMALL, decoder="dilated", dilated_layers=3, likelihood="gaussian"), signal
    ),
    "vqvae by gradient": lambda signal: VQVAE(
        VQVAEConfig(**SMALL, codebook_update="gradient", estimator="rotation", metric="cosine"),
        signal,
    ),
    "vqvae2": lambda signal: VQVAE2(
        VQVAE2Config(**SMALL, num_embeddings=(5, 7), likelihood="logistic"), signal
    ),
    "vqvae2 with shortcuts": lambda signal: VQVAE2(
        VQVAE2Config(**SMALL, num_embeddings=(5, 7), patch_shortcut=True), signal
    ),
    "identity": Identity,
}


def signal(size: tuple[int, ...], channels: int = 1) -> Signal:
    return Signal(size, channels, levels=11, num_labels=3)


def batch(signal: Signal, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (count, signal.channels, *signal.size)
    x = torch.randint(signal.levels, shape, generator=generator, dtype=torch.uint8)
    return x, torch.arange(count) % signal.num_labels


@pytest.fixture(params=SIZES, ids=str)
def size(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


@pytest.fixture(params=MAKERS)
def tokenizer(request: pytest.FixtureRequest, size: tuple[int, ...]) -> Tokenizer:
    """After one training forward, which also draws the codebooks from data; in eval mode."""
    torch.manual_seed(0)
    model = MAKERS[request.param](signal(size))
    model(*batch(model.signal))
    return model.eval()


def test_codes_are_integers_below_k_on_the_grids_that_it_names(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(batch(tokenizer.signal)[0])
    assert tuple(tuple(c.shape) for c in codes) == tuple((6, *g) for g in tokenizer.code_grids)
    assert [c.dtype for c in codes] == [torch.int64] * len(codes)
    for level, k in zip(codes, tokenizer.codebook_sizes, strict=True):
        assert 0 <= level.min() <= level.max() < k
        assert len(level.unique()) > 1


def test_forward_measures_what_encode_and_decode_give_bit_for_bit(tokenizer: Tokenizer) -> None:
    x, labels = batch(tokenizer.signal)
    output = tokenizer(x, labels)
    codes = tokenizer.encode(x)
    assert all(torch.equal(a, b) for a, b in zip(output.codes, codes, strict=True))
    nll = -tokenizer.likelihood.log_prob(tokenizer.decode(codes, labels), x).flatten(1).sum(1)
    assert torch.equal(output.nll, nll)
    assert torch.equal(tokenizer.nll(x, labels), nll)
    assert torch.equal(tokenizer.nll(x, labels, codes), nll)
    assert torch.equal(tokenizer.cost(x, labels), nll)


def test_an_item_is_coded_alike_in_any_batch(tokenizer: Tokenizer) -> None:
    x, _ = batch(tokenizer.signal)
    together, alone = tokenizer.encode(x), tokenizer.encode(x[2:3])
    assert all(torch.equal(a[2:3], b) for a, b in zip(together, alone, strict=True))


def test_a_description_survives_json_and_rebuilds_it(tokenizer: Tokenizer) -> None:
    description = json.loads(json.dumps(tokenizer.description()))
    twin = type(tokenizer).from_description(description).eval()
    twin.load_state_dict(tokenizer.state_dict())
    x, labels = batch(tokenizer.signal)
    assert torch.equal(twin.nll(x, labels), tokenizer.nll(x, labels))
    assert twin.description() == tokenizer.description()
    assert (twin.code_grids, twin.signal) == (tokenizer.code_grids, tokenizer.signal)


def test_every_parameter_gets_a_gradient(tokenizer: Tokenizer) -> None:
    tokenizer.train()
    output = tokenizer(*batch(tokenizer.signal))
    parameters = dict(tokenizer.named_parameters())
    if parameters:
        output.loss.backward()
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []


def test_foreign_signals_and_codes_are_refused(tokenizer: Tokenizer) -> None:
    x, labels = batch(tokenizer.signal)
    codes = tokenizer.encode(x)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 1, .*\), got \(6, 1, .*, 1\)"):
        tokenizer.encode(x[..., None])
    with pytest.raises(ValueError, match=r"codes must be a tuple with grids .*, got a tensor"):
        tokenizer.decode(codes[0], labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"codes must be a tuple with grids .*, got "):
        tokenizer.decode(tuple(c[..., :-1] for c in codes), labels)


def test_the_table_of_tokenizers_is_that_of_this_file() -> None:
    assert {name.split()[0] for name in MAKERS} == set(TOKENIZERS)


@pytest.mark.parametrize("kind", ["vqvae", "vqvae2"])
def test_a_squared_error_trains_and_refuses_to_tell_bits(kind: str) -> None:
    torch.manual_seed(0)
    config = {"vqvae": VQVAEConfig, "vqvae2": VQVAE2Config}[kind]
    model = TOKENIZERS[kind](config(**SMALL, likelihood="mse"), signal((8, 8)))
    x, labels = batch(model.signal)
    output = model(x, labels)
    assert output.nll is None
    output.loss.backward()
    model.eval()
    location = model.decode(model.encode(x), labels)
    error = (location - (x / 5.0 - 1)).square().flatten(1).sum(1)
    torch.testing.assert_close(model.cost(x, labels), error)
    with pytest.raises(NoLikelihoodError):
        model.nll(x, labels)

"""The tokenizer: shapes, bits, conditioning, and that it learns."""

import dataclasses
import json

import pytest
import torch

from vqtrain.models import VQVAE, Signal, VQVAEConfig

SMALL = {"hidden": 16, "residual_hidden": 8, "num_embeddings": 6, "embedding_dim": 4}


def make(channels: int = 1, size: tuple[int, ...] = (8, 8), **config: object) -> VQVAE:
    torch.manual_seed(0)
    sizes = VQVAEConfig(**{**SMALL, **config})  # type: ignore[arg-type]
    return VQVAE(sizes, Signal(size, channels, levels=17, num_labels=4))


def images(*shape: int) -> torch.Tensor:
    return torch.randint(17, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("channels", "size", "downsamplings", "grid"),
    [
        (1, (8, 8), 1, (4, 4)),
        (3, (8, 12), 2, (2, 3)),
        (1, (4, 6), 0, (4, 6)),
        (1, (24,), 3, (3,)),
        (2, (4, 8, 12), 2, (1, 2, 3)),
    ],
)
def test_signals_become_a_grid_of_codes_and_likelihood_parameters(
    channels: int, size: tuple[int, ...], downsamplings: int, grid: tuple[int, ...]
) -> None:
    model = make(channels, size, downsamplings=downsamplings).eval()
    x, labels = images(5, channels, *size), torch.zeros(5, dtype=torch.long)
    (codes,) = model.encode(x)
    assert model.code_grids == (grid,)
    assert model.codebook_sizes == (6,)
    assert codes.shape == (5, *grid)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < 6
    assert model.decode((codes,), labels).shape == (5, channels * 17, *size)


def test_nll_is_the_decoders_code_length_of_the_image_in_nats() -> None:
    model = make().eval()
    x, labels = images(3, 1, 8, 8), torch.tensor([0, 1, 3])
    log_p = model.decode(model.encode(x), labels).log_softmax(1)
    by_hand = [
        -sum(log_p[n, int(x[n, 0, i, j]), i, j].item() for i in range(8) for j in range(8))
        for n in range(3)
    ]
    assert model.nll(x, labels).tolist() == pytest.approx(by_hand, rel=1e-5)
    assert torch.equal(model.nll(x, labels), model.nll(x, labels, model.encode(x)))


@pytest.mark.parametrize("size", [(8,), (8, 12), (4, 4, 8)])
def test_forward_measures_what_encode_and_decode_give_bit_for_bit(size: tuple[int, ...]) -> None:
    model = make(size=size).eval()
    x, labels = images(3, 1, *size), torch.tensor([0, 1, 3])
    output = model(x, labels)
    assert torch.equal(output.codes[0], model.encode(x)[0])
    assert torch.equal(output.nll, model.nll(x, labels))
    assert output.loss > output.nll.mean() / model.signal.dims  # the commitment term is in it


@pytest.mark.parametrize("class_conditional", [True, False])
def test_the_label_reaches_the_decoder_only_when_asked(class_conditional: bool) -> None:
    model = make(class_conditional=class_conditional).eval()
    codes = (torch.zeros(1, 4, 4, dtype=torch.long),)
    zero, one = (model.decode(codes, torch.tensor([label])) for label in (0, 1))
    assert torch.equal(zero, one) is not class_conditional


def test_training_lowers_the_bits_and_moves_the_codebook() -> None:
    model = make()
    x, labels = images(32, 1, 8, 8) // 9 * 16, torch.arange(32) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = model(x, labels)
    codebook = model.quantizer.codebook.clone()
    for _ in range(30):
        output = model(x, labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.nll.mean() < 0.7 * first.nll.mean()
    assert not torch.equal(codebook, model.quantizer.codebook)


def test_every_parameter_gets_a_gradient() -> None:
    model = make()
    model(images(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_description_survives_json_and_rebuilds_the_model() -> None:
    model = make(residual_blocks=1).eval()
    twin = VQVAE.from_description(json.loads(json.dumps(model.description()))).eval()
    twin.load_state_dict(model.state_dict())
    x = images(4, 1, 8, 8)
    assert torch.equal(model.encode(x)[0], twin.encode(x)[0])
    assert (twin.config, twin.signal) == (model.config, model.signal)


def test_broken_contracts_are_named() -> None:
    model = make()
    with pytest.raises(ValueError, match=r"x must have shape \(B, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        model.encode(images(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"lengths divisible by 2, got \(7, 8\)"):
        make(size=(7, 8))
    labels, codes = torch.zeros(2, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"grids \(\(4, 4\),\), got a tensor \(2, 4, 4\)"):
        model.decode(codes, labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"grids \(\(4, 4\),\), got \(\(4, 3\),\)"):
        model.decode((codes[:, :, :3],), labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"levels": 1}, "levels must be at least 2, got 1"),
        ({"num_labels": 0}, "num_labels must be at least 1, got 0"),
        ({"size": (4, 4, 4, 4)}, r"size must have one to three lengths, got \(4, 4, 4, 4\)"),
        ({"size": (4, 0)}, r"size must have positive lengths, got \(4, 0\)"),
    ],
)
def test_a_signal_names_what_is_wrong_with_it(change: dict[str, object], message: str) -> None:
    signal = Signal((8, 8), channels=1, levels=17)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(signal, **change)  # type: ignore[arg-type]


def test_code_maps_add_an_axis_of_codes_out_of_one_codebook() -> None:
    model = make(code_maps=3, downsamplings=1)
    x, labels = images(5, 1, 8, 8), torch.zeros(5, dtype=torch.long)
    model(x, labels)
    model.eval()
    codes = model.encode(x)
    assert model.code_grids == ((4, 4, 3),)
    assert codes[0].shape == (5, 4, 4, 3)
    assert torch.equal(model(x, labels).codes[0], codes[0])
    assert [tuple(b.shape) for n, b in model.named_buffers() if n.endswith("codebook")] == [(6, 4)]
    moved = codes[0].clone()
    moved[..., 2] = (moved[..., 2] + 1) % 6
    assert not torch.equal(model.decode((moved,), labels), model.decode(codes, labels))
    for size, maps in (((4, 4, 8), 2), ((8, 8), 0)):
        with pytest.raises(ValueError, match="code_maps must be at least 1, and 1 on a grid of"):
            make(size=size, code_maps=maps)


def test_a_codebook_trained_by_gradient_is_a_parameter_and_moves_with_the_optimizer() -> None:
    model = make(codebook_update="gradient")
    x, labels = images(16, 1, 8, 8), torch.arange(16) % 4
    model(x, labels)  # k-means draws the codebook
    before = model.quantizer.codebook.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    output = model(x, labels)
    output.loss.backward()
    gradient = model.quantizer.codebook.grad
    optimizer.step()
    assert "quantizer.codebook" in dict(model.named_parameters())
    assert torch.equal(model.quantizer.codebook, before - 0.1 * gradient)


def test_the_dilated_decoder_reaches_as_far_as_its_dilations_add_up_to() -> None:
    # 1 + 2 + 4 + 1 + 2 of the layers, 1 of the input convolution at the rate of the codes, and
    # half of each 4-wide transposed convolution.
    model = make(
        size=(256,), decoder="dilated", dilated_layers=5, dilation_cycle=3, downsamplings=1
    ).eval()
    codes, labels = torch.zeros(1, 128, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    moved = codes.clone()
    moved[0, 64] = 1
    difference = model.decode((moved,), labels) - model.decode((codes,), labels)
    seen = difference.abs().sum((0, 1)).nonzero().flatten()
    assert (seen.min().item(), seen.max().item()) == (128 - 2 - 1 - 10, 129 + 2 + 1 + 10)


def test_the_label_reaches_every_layer_of_the_dilated_decoder() -> None:
    model = make(size=(16,), decoder="dilated", dilated_layers=3)
    tables = [n for n, _ in model.named_parameters() if n.endswith("label.weight")]
    assert len(tables) == 3
    unconditional = make(size=(16,), decoder="dilated", class_conditional=False)
    assert not any("label" in n for n, _ in unconditional.named_parameters())

"""The hierarchy: levels, what each is told of those above, and that it learns."""

import pytest
import torch
from torch import Tensor

from vqtrain.models import VQVAE2, Signal, VQVAE2Config


def make(size: tuple[int, ...] = (16, 16), **config: object) -> VQVAE2:
    torch.manual_seed(0)
    small = {"hidden": 12, "residual_hidden": 6, "embedding_dim": 4, **config}
    return VQVAE2(VQVAE2Config(**small), Signal(size, 1, levels=9, num_labels=3))  # type: ignore[arg-type]


def images(count: int = 8, size: tuple[int, ...] = (16, 16)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(9, (count, 1, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("size", "downsamplings", "grids"),
    [
        ((16, 24), (2,), ((4, 6),)),
        ((256, 256), (1, 2), ((32, 32), (64, 64))),  # the paper's
        ((16, 24), (1, 1, 1), ((2, 3), (4, 6), (8, 12))),
        ((32,), (2, 0, 1), ((4,), (16,), (16,))),
        ((8, 8, 16), (1, 1), ((2, 2, 4), (4, 4, 8))),
    ],
)
def test_grids_are_listed_from_the_top(
    size: tuple[int, ...], downsamplings: tuple[int, ...], grids: tuple[tuple[int, ...], ...]
) -> None:
    sizes = tuple(range(3, 3 + len(downsamplings)))
    model = make(size, downsamplings=downsamplings, num_embeddings=sizes).eval()
    assert model.code_grids == grids
    assert model.codebook_sizes == sizes
    if max(size) < 256:
        codes = model.encode(images(2, size))
        assert tuple(tuple(c.shape[1:]) for c in codes) == grids


def three_levels() -> VQVAE2:
    model = make(downsamplings=(1, 1, 1), num_embeddings=(4, 8, 8))
    model(images(), torch.zeros(8, dtype=torch.long))
    return model.eval()


@pytest.mark.parametrize("level", [0, 1])
def test_what_a_level_says_changes_the_codes_chosen_below_and_none_above(level: int) -> None:
    model = three_levels()
    before = model.encode(images())
    with torch.no_grad():
        model.quantizers[level].codebook.neg_()  # type: ignore[operator]
        model.quantizers[level].flush()  # type: ignore[operator]
    after = model.encode(images())
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed[:level] == [False] * level
    assert changed[level + 1 :] == [True] * (2 - level)


def test_the_decoder_sees_every_level() -> None:
    model = three_levels()
    codes, labels = model.encode(images()), torch.zeros(8, dtype=torch.long)
    plain = model.decode(codes, labels)
    for level in range(3):
        other = list(codes)
        other[level] = (codes[level] + 1) % model.codebook_sizes[level]
        assert not torch.equal(model.decode(tuple(other), labels), plain)


def test_a_code_is_seen_where_it_stands() -> None:
    # A code of the top level is far from the corner that lies across.
    model = make((64, 64), downsamplings=(1, 1), num_embeddings=(4, 4), residual_blocks=0).eval()
    codes, labels = model.encode(images(1, (64, 64))), torch.zeros(1, dtype=torch.long)
    moved = codes[0].clone()
    moved[0, 0, 0] = (moved[0, 0, 0] + 1) % 4
    difference = (model.decode((moved, codes[1]), labels) - model.decode(codes, labels)).abs()
    assert difference[..., :4, :4].sum() > 0
    assert difference[..., 32:, :].sum() == difference[..., :, 32:].sum() == 0


def test_the_label_reaches_the_decoder_and_never_the_codes() -> None:
    model = three_levels()
    zero, one = (model(images(), torch.full((8,), label)) for label in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(zero.codes, one.codes, strict=True))
    assert not torch.equal(zero.nll, one.nll)
    names = [n for n, _ in model.named_parameters() if "label" in n]
    assert names == ["decoder.label.weight"]


def test_training_lowers_the_bits_and_uses_all_codebooks() -> None:
    model = make(num_embeddings=(6, 6), hidden=24, residual_hidden=16, ema_decay=0.9)
    # Blocks of 4x4 pixels, one of two levels each: 16 bits that a code per block can say.
    blocks = images(16, (4, 4)) // 5 * 8
    x = blocks.repeat_interleave(4, -1).repeat_interleave(4, -2)
    labels = torch.arange(16) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = model(x, labels)
    for _ in range(110):
        output = model(x, labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.nll.mean() < 0.2 * first.nll.mean()
    assert min(p.item() for p in output.scalars.values()) > 2
    assert set(output.scalars) == {"perplexity_0", "perplexity_1"}


def test_broken_configurations_are_named() -> None:
    with pytest.raises(ValueError, match="downsamplings must name at least one level"):
        VQVAE2Config(downsamplings=(), num_embeddings=())
    with pytest.raises(ValueError, match=r"num_embeddings must name 2 levels.* got \(8,\)"):
        VQVAE2Config(downsamplings=(1, 1), num_embeddings=(8,))
    with pytest.raises(ValueError, match=r"lengths divisible by 2, got \(3, 4\)"):
        make((12, 16), downsamplings=(1, 2))

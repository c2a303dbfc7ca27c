"""What pictures keep: PSNR, SSIM, and the floors that need no network."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from vqtrain.data.dataset import Dataset, Split, StoredTrainSet
from vqtrain.metrics.fidelity import fidelity
from vqtrain.metrics.ladder import ladder, unfit
from vqtrain.metrics.patches import patch_codebook, through_patches
from vqtrain.models.tokenizer import Signal


def noisy(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (3, 1, *size), generator=generator).to(torch.uint8)
    return x, (x + torch.randn(x.shape, generator=generator) * 20).clamp(0, 255)


def test_psnr_is_over_all_entries_and_of_each_group_over_its_own() -> None:
    x, decoded = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8)
    decoded[0] += 4
    decoded[1] += 2
    groups = {"a": torch.tensor([True, False]), "b": torch.tensor([False, True])}
    got = fidelity(decoded, x, 17, groups)
    assert got.psnr == pytest.approx(10 * math.log10(16**2 / 10))
    assert got.psnr_by_group == {
        "a": pytest.approx(10 * math.log10(16**2 / 16)),
        "b": pytest.approx(10 * math.log10(16**2 / 4)),
    }


def test_ssim_is_that_of_scikit_image() -> None:
    x, decoded = noisy(32, 40)
    got = fidelity(decoded, x, 256)
    theirs = [
        structural_similarity(
            *(a[0].numpy(), b[0].double().numpy()),
            **{"data_range": 255, "gaussian_weights": True, "use_sample_covariance": False},
        )
        for a, b in zip(decoded.double(), x, strict=True)
    ]
    assert got.ssim_window == "Gaussian, 11 a side"
    assert got.ssim == pytest.approx(sum(theirs) / 3, abs=2e-3)


def test_ssim_of_small_pictures_is_a_number_and_of_sound_is_absent() -> None:
    x, decoded = noisy(8, 8)
    same = fidelity(x.float(), x, 256)
    assert same.ssim == pytest.approx(1)
    assert 0 < fidelity(decoded, x, 256).ssim < 1  # type: ignore[operator]
    assert fidelity(*reversed(noisy(64)), 256).ssim is None  # type: ignore[arg-type]
    volume, blurred = noisy(8, 16, 16)
    assert 0 < fidelity(blurred, volume, 256).ssim < 1  # type: ignore[operator]


def test_patch_codes_find_the_patches_that_a_picture_is_made_of() -> None:
    generator = torch.Generator().manual_seed(0)
    stamps = torch.randint(256, (5, 3 * 16), generator=generator).float()
    chosen = torch.randint(5, (8, 8, 8), generator=generator)
    pictures = torch.nn.functional.pixel_shuffle(stamps[chosen].movedim(-1, 1), 4)
    found = through_patches(pictures, pictures, [4], [24])
    assert torch.allclose(found, pictures, atol=1e-3)
    # Fewer codes than patches: a mean patch cannot be right, and more of them are closer.
    noise = torch.rand(8, 3, 32, 32, generator=generator) * 255
    errors = [
        (through_patches(noise, noise, sides, sizes) - noise).square().mean()
        for sides, sizes in (([4], [4]), ([4], [64]), ([4, 2], [64, 64]))
    ]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.8 * errors[1]  # the second level codes what the first one left
    with pytest.raises(ValueError, match="at least 600 patches, one per code, got 512"):
        patch_codebook(noise, 4, 600)


def test_the_ladder_finds_what_each_rung_can_see() -> None:
    n, labels = 600, torch.arange(600) % 3
    noise = torch.randint(4, (n,), generator=torch.Generator().manual_seed(0))
    # Pixel 0 is noise, pixel 1 repeats it, pixels 2 and 3 are the class.
    pixels = torch.stack((noise // 2 * 3, noise // 2 * 3, labels, labels), dim=1)
    items = Split(pixels.view(n, 1, 2, 2).to(torch.uint8), labels, torch.arange(n))
    signal = Signal((2, 2), channels=1, levels=4, num_labels=3)
    rungs = ladder(Dataset(StoredTrainSet(items), items, items, signal, tuple("abc")))
    close = {"abs": 0.04}
    assert rungs["uniform"] == 2
    assert rungs["independent"] == pytest.approx((1 + 1 + 2 * math.log2(3)) / 4, **close)
    assert rungs["class_independent"] == pytest.approx((1 + 1) / 4, **close)
    assert rungs["class_autoregressive"] == pytest.approx(1 / 4, **close)
    # Without the class, pixel 2 must be learned and pixel 3 copied, by a linear rule.
    assert 1 / 4 < rungs["autoregressive"] < rungs["independent"]


def test_the_ladder_says_what_it_is_too_small_for() -> None:
    assert unfit(Signal((8, 8), 1, 17)) is None
    assert "3072 of 256" in (unfit(Signal((32, 32), 3, 256)) or "")

"""code_sums, ema_update_, usage and explain through the public functions."""

from __future__ import annotations

import cases
import pytest
import textbook
import torch
from backends import available

import vqkernels as vq


def test_code_sums_is_not_differentiable_and_takes_any_layout() -> None:
    x, channel_dim = cases.LAYOUTS["channels last"](cases.batch()[0].requires_grad_())
    indices = (torch.arange(24) % 5).reshape(2, 3, 4)
    mask = indices != 2
    counts, sums = vq.code_sums(x, indices, 5, mask=mask, channel_dim=channel_dim)
    assert counts.tolist() == [5, 5, 0, 5, 4]
    assert not sums.requires_grad
    rows = cases.as_matrix(x.detach(), channel_dim)
    assert torch.equal(sums[2], torch.zeros(6))
    assert torch.equal(sums[1], rows[indices.reshape(-1) == 1].double().sum(dim=0).float())


def test_the_ema_of_a_quantizer_step_is_the_textbooks() -> None:
    x, codebook = cases.search("photo 2x2x3 PCA 8")
    out = vq.vector_quantize(x, codebook)
    counts, sums = vq.code_sums(x, out.indices, len(codebook))
    size, total = torch.ones(len(codebook)), codebook.clone()
    exact = textbook.ema(size.double(), total.double(), counts, sums.double(), 0.9, 1e-5)
    moved = codebook.clone()
    vq.ema_update_(moved, size, total, counts, sums, decay=0.9, epsilon=1e-5)
    eager = textbook.ema(torch.ones(len(codebook)), codebook, counts, sums, 0.9, 1e-5)
    error, yardstick = ((value.double() - exact[0]).abs().max() for value in (moved, eager[0]))
    assert error <= yardstick + torch.finfo(torch.float32).eps * exact[0].abs().max()


def test_ema_update_checks_before_it_writes() -> None:
    codebook, size, total = torch.ones(4, 2), torch.ones(4), torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"^sums must have shape \(4, 2\), got \(3, 2\)"):
        vq.ema_update_(codebook, size, total, size, torch.ones(3, 2), decay=0.9, epsilon=0.0)
    assert (codebook == 1).all()
    assert (size == 1).all()
    assert (total == 1).all()


@pytest.mark.parametrize("counts", [[5, 5, 5, 5], [20, 0, 0, 0], [1, 2, 3, 14]])
def test_perplexity_is_the_exponential_of_the_entropy(counts: list[int]) -> None:
    usage = vq.CodeUsage(torch.tensor(counts), torch.tensor(0.0))
    expected = textbook.perplexity(usage.counts)
    eps = torch.finfo(torch.float32).eps
    assert abs(float(usage.perplexity) - float(expected)) <= eps * float(expected)
    assert usage.active == sum(count > 0 for count in counts)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (1, 5), (64, 1), (64, 64), (1024, 300), (7, 10**6)])
def test_the_active_ceiling_is_what_uniform_use_would_hit(k: int, n: int) -> None:
    counts = torch.zeros(k, dtype=torch.int64)
    counts[0] = n
    usage = vq.CodeUsage(counts, torch.tensor(0.0))
    expected = k * (1 - (1 - 1 / k) ** n)
    assert float(usage.active_ceiling) == float(torch.tensor(expected).float())


def test_no_rows_mean_no_perplexity() -> None:
    usage = vq.CodeUsage(torch.zeros(5, dtype=torch.int64), torch.tensor(0.0))
    assert usage.perplexity == 0
    assert usage.active == 0
    assert usage.active_ceiling == 0


def test_explain_names_the_backend_of_every_op_and_why_not_the_others() -> None:
    explained = vq.explain(*cases.batch())
    best = "native" if "native" in available() else "reference"
    assert set(explained.chosen) >= {"nearest_code", "vq_forward", "vq_backward", "lookup"}
    assert set(explained.chosen.values()) == {best}
    for op, chosen in explained.chosen.items():
        assert set(explained.why_not[op]) == {"native", "triton", "reference"} - {chosen}
        assert all(explained.why_not[op].values())
    assert f"nearest_code: {best}" in repr(explained)


def test_explain_agrees_with_what_float64_gets() -> None:
    x, codebook = cases.batch()
    explained = vq.explain(x.double(), codebook)
    assert explained.chosen["nearest_code"] == "reference"
    assert "float64" in explained.why_not["nearest_code"]["native"]

"""The soft assignment in Triton, interpreted on the CPU and compiled on a GPU.

Values and gradients have tests of their own in ``ops``; here is what only these kernels can get
wrong: they cut their sums into pieces, and must neither wait nor depend on the data.
"""

from __future__ import annotations

import cases
import pytest
import torch
from backends import interpreted
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops

pytest.importorskip("triton")

pytestmark = [] if interpreted() else [pytest.mark.gpu]
_on_a_gpu = pytest.mark.skipif(interpreted(), reason="kernels are interpreted in this process")
_DEVICE = "cpu" if interpreted() else "cuda"
# Rows, codes, channels: few tiles on one side and many on the other; two slices of channels.
_SHAPES = ((60, 500, 6), (500, 60, 6), (70, 130, 150))


def _gaussian(*shape: int) -> tuple[Tensor, Tensor]:
    x, codes = cases.gaussian(*shape)
    return x.to(_DEVICE), codes.to(_DEVICE)


def _soft(x: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    return ops.SoftAssign.apply(x, codes, None, temperature, 1, True, "triton")


def _eager(x: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    centre = codes.mean(dim=0)
    logits = -torch.cdist(x - centre, codes - centre).square() / temperature
    p = logits.softmax(dim=1)
    return logits.logsumexp(dim=1), (p * logits).sum(dim=1), p.sum(dim=0)


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_pieces_add_up_to_the_float64_values_and_gradients(shape: tuple[int, ...]) -> None:
    x, codes = _gaussian(*shape)
    results = []
    for form, dtype in (
        (_soft, torch.float32),
        (_eager, torch.float64),
        (_eager, torch.float32),
    ):
        leaves = [value.clone().to(dtype).requires_grad_() for value in (x, codes)]
        out = form(*leaves, 0.5 * shape[2])
        g = cases.generator(7)
        total = sum((v * torch.randn(v.shape, generator=g).to(_DEVICE)).sum() for v in out)
        results.append([*out, *torch.autograd.grad(total, leaves)])
    for got, exact, eager in zip(*results, strict=True):
        assert_within_budget(got.float(), exact, eager)


@pytest.mark.parametrize("temperature", [1e-4, 1.0, 1e4])
def test_probabilities_sum_to_one_however_large_the_scores_are(temperature: float) -> None:
    """A log-sum of -10^4, as of the second codebook at 1, is rounded by 10^-3 in float32."""
    x, codes = _gaussian(70, 130, 8)
    sphere = 100.0 * codes / codes.norm(dim=1, keepdim=True)
    for rows, book in ((x, codes), (0.01 * x, sphere)):
        *_, usage = _soft(rows, book, temperature)
        # Two roundings for each exponential, and one of the result.
        assert abs(float(usage.double().sum()) - 70) <= 4 * torch.finfo(torch.float32).eps * 70


def test_a_draw_of_nearly_one_takes_the_last_code_that_is_possible() -> None:
    """The sum of all probabilities may be less than that by its rounding."""
    from vqkernels.backends.triton.sample_codes import sample_codes

    x, codes = _gaussian(70, 130, 8)
    codes[100:] = torch.nan
    log_sums, *_ = _soft(x, codes, 1e4)
    draws = torch.full((70,), 1.0 - 2.0**-33, dtype=torch.float64, device=_DEVICE)
    assert (sample_codes(x, codes, log_sums, draws, 1e4, 1) == 99).all()
    assert (sample_codes(x, codes, log_sums, 0.0 * draws, 1e4, 1) == 0).all()


def _everything(x: Tensor, codes: Tensor, clock: Tensor) -> list[Tensor]:
    leaves = [value.detach().requires_grad_() for value in (x, codes)]
    out = _soft(*leaves, 2.0)
    draws = ops.sample_codes(x, codes, out[0].detach(), clock, 5, 2.0, 1, "triton")
    total = out[0].sum() + out[1].square().sum() + out[2].square().sum()
    return [*out, draws, *torch.autograd.grad(total, leaves)]


@_on_a_gpu
def test_a_captured_call_replays_as_an_eager_one_runs_and_neither_waits() -> None:
    batches = [torch.randn(3000, 24, generator=cases.generator(i)).cuda() for i in range(3)]
    codes, clock = batches[0][:300].clone(), torch.tensor(3).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles the kernels
        _everything(batches[0], codes, clock)
    torch.cuda.current_stream().wait_stream(stream)
    graph, x = torch.cuda.CUDAGraph(), batches[0].clone()
    with torch.cuda.graph(graph):
        captured = _everything(x, codes, clock)
    for batch in batches[1:]:
        x.copy_(batch)
        graph.replay()
        torch.cuda.set_sync_debug_mode("error")
        try:
            eager = _everything(batch, codes, clock)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for got, expected in zip(captured, eager, strict=True):
            assert torch.equal(got, expected)

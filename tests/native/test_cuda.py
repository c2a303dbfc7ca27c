"""The native backend on a CUDA device: the oracle's bits, determinism, and graphs."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import torch
from backends import native_core
from budget import assert_summed_in_float64
from torch import Tensor

import vqkernels as vq
from vqkernels import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not hasattr(native_core(), "cuda"), reason="native is not built with CUDA"),
]


def _assert_equals(found: vq.NearestCode, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.indices.cpu().reshape(-1).numpy(), expected[0])
    np.testing.assert_array_equal(found.distances.cpu().reshape(-1).numpy(), expected[1])


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_search_equals_the_oracle(name: str, dtype: torch.dtype, metric: str) -> None:
    x, codebook = (value.cuda() for value in cases.search(name, dtype))
    found = vq.nearest_code(x, codebook, metric=metric, backend="native")
    _assert_equals(found, oracle.on_case(name, dtype, metric))


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes_equal_the_oracle(shape: tuple[int, int, int], metric: str) -> None:
    x, codebook = cases.gaussian(*shape)
    found = vq.nearest_code(x.cuda(), codebook.cuda(), metric=metric, backend="native")
    _assert_equals(found, oracle.nearest_code(x, codebook, metric))


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout_is_read_in_place(layout: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    memory = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage()).cuda()
    on_device = memory.as_strided(x.shape, x.stride(), x.storage_offset())
    found = vq.nearest_code(on_device, codebook.cuda(), channel_dim=channel_dim, backend="native")
    _assert_equals(found, oracle.nearest_code(cases.as_matrix(x, channel_dim), codebook, "l2"))


@pytest.mark.parametrize("name", ["Gaussian", "half duplicated"])
def test_a_large_search_equals_the_cpu(name: str) -> None:
    """Every block of the GPU at work, and more than 2^31 pairs."""
    x, codebook = cases.DATA[name](300_000, 8192, 8)
    found = vq.nearest_code(x.cuda(), codebook.cuda(), backend="native")
    expected = vq.nearest_code(x, codebook, backend="native")
    assert torch.equal(found.indices.cpu(), expected.indices)
    assert torch.equal(found.distances.cpu(), expected.distances)


def _many_rows() -> tuple[Tensor, Tensor]:
    """A hot code, and codes with few rows or none."""
    x, _ = cases.gaussian(200_000, 1, 24)
    indices = torch.randint(0, 4096, (200_000,), generator=cases.generator(1))
    indices[::3] = 17
    return x.cuda(), indices.cuda()


@pytest.mark.parametrize("metric", cases.METRICS)
def test_sums_are_right_and_the_same_on_every_run(metric: str) -> None:
    x, indices = _many_rows()
    runs = [ops.code_sums(x, indices, 5000, None, metric, 1, "native") for _ in range(5)]
    rows = x.double() if metric == "l2" else torch.nn.functional.normalize(x.double(), dim=1)
    nothing = torch.zeros(5000, 24, dtype=torch.float64, device="cuda")
    exact = nothing.index_add(0, indices, rows)
    magnitude = nothing.index_add(0, indices, rows.abs())
    for counts, sums in runs:
        assert torch.equal(counts, torch.bincount(indices, minlength=5000))
        # Twice the margin: the expected sums are added in an order of their own.
        assert_summed_in_float64(sums, exact, 2 * magnitude)
        assert torch.equal(sums, runs[0][1])


@pytest.mark.parametrize("metric", cases.METRICS)
def test_both_ops_replay_in_a_graph(metric: str) -> None:
    x, codebook = (value.cuda() for value in cases.gaussian(5000, 300, 24))

    def step() -> list[Tensor]:
        found = vq.nearest_code(x, codebook, metric=metric, backend="native")
        return [*found, *ops.code_sums(x, found.indices, 300, None, metric, 1, "native")]

    step()  # loads what a capture may not load
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    x.copy_(cases.gaussian(5000, 300, 24, seed=1)[0])
    graph.replay()
    replayed = [value.clone() for value in captured]
    assert all(map(torch.equal, replayed, step()))


def test_nothing_waits_for_the_device() -> None:
    x, codebook = (value.cuda() for value in cases.gaussian(5000, 300, 24))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = vq.nearest_code(x, codebook, backend="native")
        ops.code_sums(x, found.indices, 300, None, "l2", 1, "native")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_work_goes_to_the_current_stream() -> None:
    x, codebook = (value.cuda() for value in cases.gaussian(20_000, 4096, 64))
    expected = vq.nearest_code(x, codebook, backend="native")
    later = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        later.copy_(x)
        found = vq.nearest_code(later, codebook, backend="native")
    stream.synchronize()
    assert torch.equal(found.indices, expected.indices)

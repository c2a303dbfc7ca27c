"""The compiled core below the Python layers: every instruction-set level gives the same bits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cases
import oracle
import pytest
import torch
from backends import isa_levels, native_core
from torch import Tensor

NO_PREPARED = (0, 0)
WAYS = ("streamed", "packed", "prepared", "cells", "prepared cells")
PACKS_FROM = 512  # rows; with fewer the codes stream by unpacked
pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")

OBJECTS = Path(__file__).parents[2] / "build"
THREADS = (1, 2, 3)


@pytest.fixture(params=isa_levels())
def core(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    module = native_core()
    assert module is not None
    before = module.isa()
    module.force_isa(request.param)
    yield module
    module.force_isa(before)


def rows(core: ModuleType, x: Tensor) -> object:
    """A (N, D) matrix of any strides."""
    dtype = (torch.float32, torch.float16, torch.bfloat16).index(x.dtype)
    return core.Rows(x.data_ptr(), dtype, x.shape, x.stride(), 1)


def prepared(core: ModuleType, codes: Tensor, metric: str, threads: int, cells: int) -> Tensor:
    k, d = codes.shape
    block = torch.full((core.prepared_bytes(k, d, cells),), 255, dtype=torch.uint8)
    number = cases.METRICS.index(metric)
    core.prepare(codes.data_ptr(), k, d, number, cells, block.data_ptr(), threads)
    return block


def nearest(
    core: ModuleType,
    x: Tensor,
    codes: Tensor,
    metric: str,
    threads: int,
    block: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    indices = torch.full((len(x),), -9)
    distances = torch.full((len(x),), -9.0)
    core.nearest_code(
        rows(core, x),
        codes.data_ptr(),
        len(codes),
        cases.METRICS.index(metric),
        NO_PREPARED if block is None else (block.data_ptr(), block.numel()),
        indices.data_ptr(),
        distances.data_ptr(),
        threads,
    )
    return indices, distances


def nearest_by(
    way: str, core: ModuleType, x: Tensor, codes: Tensor, metric: str, threads: int
) -> tuple[Tensor, Tensor]:
    """The search by the path that ``way`` names, whatever the number of rows."""
    block = None
    if way.startswith("prepared"):
        cells = min(len(codes), 17) if way.endswith("cells") else 0
        block = prepared(core, codes, metric, threads, cells)
    if way.endswith("cells"):
        core.force_pruning("always")
        try:
            return nearest(core, x, codes, metric, threads, block)
        finally:
            core.force_pruning("auto")
    if way == "prepared":
        return nearest(core, x, codes, metric, threads, block)
    if way == "streamed":
        assert len(x) < PACKS_FROM
        return nearest(core, x, codes, metric, threads)
    many = x.repeat(-(-PACKS_FROM // len(x)), 1)
    indices, distances = nearest(core, many, codes, metric, threads)
    return indices[-len(x) :], distances[-len(x) :]


def same_bits(got: Tensor, expected: Tensor) -> bool:
    return torch.equal(got.isnan(), expected.isnan()) and torch.equal(
        got.nan_to_num(), expected.nan_to_num()
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("metric", cases.METRICS)
def test_search_is_the_oracle_at_any_thread_count(core: ModuleType, metric: str, way: str) -> None:
    for name in cases.SEARCH:
        x, codebook = cases.search(name, torch.float32)
        indices, distances = map(torch.from_numpy, oracle.on_case(name, torch.float32, metric))
        codes = codebook.contiguous()
        if metric == "cosine":
            codes = torch.from_numpy(oracle.normalised(codebook.double().numpy()))
        for threads in THREADS:
            found = nearest_by(way, core, x, codes, metric, threads)
            assert torch.equal(found[0], indices), (name, threads)
            assert same_bits(found[1], distances), (name, threads)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("k", [1, 2, 7, 8, 23, 24, 25, 31, 32, 33, 127, 128, 129, 1000])
def test_search_at_the_edges_of_panels_and_groups(core: ModuleType, k: int, way: str) -> None:
    for n, d in [(1, 1), (5, 2), (6, 7), (7, 8), (12, 9), (13, 64), (97, 65), (30, 1000)]:
        x, codebook = cases.gaussian(n, k, d)
        indices, distances = map(torch.from_numpy, oracle.nearest_code(x, codebook, "l2"))
        found = nearest_by(way, core, x, codebook, "l2", 2)
        assert torch.equal(found[0], indices), (n, d)
        assert same_bits(found[1], distances), (n, d)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("distance", [1e6, 1e9, 1e12, 1e15, 1e20, 2.0**127])
def test_search_from_far_away(core: ModuleType, distance: float, way: str) -> None:
    """The rounding of F decides, not the screen; at the end no screen score is finite."""
    x, codebook = cases.gaussian(200, 500, 5)
    x = x.clamp(-1.9, 1.9) * distance
    indices, distances = map(torch.from_numpy, oracle.nearest_code(x, codebook, "l2"))
    found = nearest_by(way, core, x, codebook, "l2", 1)
    assert torch.equal(found[0], indices)
    assert same_bits(found[1], distances)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_short_value_is_read_exactly(core: ModuleType, dtype: torch.dtype) -> None:
    values = torch.arange(1 << 16).to(torch.uint16).view(dtype)[:, None]
    codes = torch.zeros(1, 1)
    _, distances = nearest(core, values, codes, "l2", 1)
    expected = values[:, 0].double().square().float()
    assert same_bits(distances, expected.where(values[:, 0].isfinite(), torch.nan))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_values_are_rounded_to_nearest_even(core: ModuleType, dtype: torch.dtype) -> None:
    """The gradient of the commitment term with x = 0 is any float32 that we like."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(1 << 31), 1 << 31, (40000,), generator=generator)
    halfway = torch.arange(1 << 16).to(torch.uint16).view(dtype).float().view(torch.int32) + 0x1000
    value = torch.cat([bits.to(torch.int32), halfway, halfway - 0x1000 + 0x8000]).view(
        torch.float32
    )
    value = value.where(value.isfinite(), 0.0)[:, None].contiguous()
    x = torch.zeros(len(value), 1, dtype=dtype)
    indices = torch.zeros(len(value), dtype=torch.int64)
    got, grad_loss = torch.empty_like(x), torch.tensor(1.0)
    weight = -len(value) / 2
    core.vq_backward(
        rows(core, x),
        rows(core, value),
        indices.data_ptr(),
        1,
        0,
        0,
        None,
        grad_loss.data_ptr(),
        weight,
        1.0,
        rows(core, got),
        0,
        1,
    )
    assert same_bits(got, value.to(dtype))


def step(
    core: ModuleType, threads: int, metric: int, estimator: int, strided: bool
) -> list[Tensor]:
    """A forward and a backward with a mask, a non-finite row and one hot code."""

    def laid_out(value: Tensor) -> Tensor:
        return value.t().contiguous().t() if strided else value

    x, codes = cases.gaussian(1500, 20, 9)
    x[:900] = codes[3] + 0.01 * x[:900]
    x[1200] = torch.nan
    x = laid_out(x.half())
    upstream = laid_out(cases.gaussian(1500, 1, 9, seed=1)[0].half())
    mask = torch.arange(1500) % 7 != 0
    quantized, grad_x = torch.empty_like(x, dtype=torch.float32), torch.empty_like(x)
    indices, counts = torch.empty(1500, dtype=torch.int64), torch.empty(20, dtype=torch.int64)
    mse, sums, grad_codes = torch.empty(()), torch.empty(20, 9), torch.empty(20, 9)
    grad_loss = torch.tensor(0.7)
    core.vq_forward(
        rows(core, x),
        codes.data_ptr(),
        len(codes),
        metric,
        NO_PREPARED,
        0,
        mask.data_ptr(),
        indices.data_ptr(),
        rows(core, quantized),
        mse.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr(),
        threads,
    )
    core.vq_backward(
        rows(core, x),
        rows(core, quantized),
        indices.data_ptr(),
        len(codes),
        metric,
        estimator,
        rows(core, upstream),
        grad_loss.data_ptr(),
        0.25,
        1.0,
        rows(core, grad_x),
        grad_codes.data_ptr(),
        threads,
    )
    return [quantized, indices, mse, counts, sums, grad_x, grad_codes]


@pytest.mark.parametrize("metric", [0, 1], ids=cases.METRICS)
@pytest.mark.parametrize("estimator", [0, 1], ids=cases.ESTIMATORS)
def test_level_threads_and_layout_change_no_bit(
    core: ModuleType, metric: int, estimator: int
) -> None:
    results = [
        step(core, threads, metric, estimator, strided)
        for threads in THREADS
        for strided in (False, True)
    ]
    core.force_isa("portable")
    expected = step(core, 1, metric, estimator, False)
    for result in results:
        assert all(map(same_bits, result, expected))


def test_level_objects_hold_no_weak_symbol() -> None:
    """The linker keeps one copy of a weak symbol, and could keep the AVX-512 one for every CPU."""
    core = native_core()
    assert core is not None
    if shutil.which("nm") is None or not any(OBJECTS.glob("cmake-*")):
        pytest.skip("needs nm and the objects of an in-tree build")
    for level in core.build_info()["levels"]:
        objects = list(OBJECTS.glob(f"cmake-*/CMakeFiles/vqk_{level}.dir/csrc/cpu/*.o"))
        assert objects, level
        listing = subprocess.run(["nm", *objects], capture_output=True, text=True, check=True)
        symbols = [line.split()[-2:] for line in listing.stdout.splitlines() if " " in line]
        # The reference to the exception personality is data, the same at every level.
        weak = [
            name for kind, name in symbols if kind in "WwVvu" and not name.startswith("DW.ref")
        ]
        assert not weak, level

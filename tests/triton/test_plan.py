"""The layout of the screen: where codes are packed, and what fits on a device."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("triton")

from vqkernels.backends.triton import bound
from vqkernels.backends.triton.hardware import Hardware
from vqkernels.backends.triton.plan import SLOTS, Plan, plan, positions

_DEVICES = {
    "A100": Hardware(108, bound.UNITS[80], 163 << 10, 8),
    "RTX 4090": Hardware(128, bound.UNITS[89], 99 << 10, 8),
    "H200": Hardware(132, bound.UNITS[90], 227 << 10, 9),
    "B200": Hardware(148, bound.UNITS[100], 227 << 10, 10),
    "RTX 5090": Hardware(170, bound.UNITS[120], 99 << 10, 12),
}
_DIMS = (1, 8, 9, 18, 19, 32, 33, 64, 100, 128, 200, 256, 700, 4096)
_CODES = (1, 31, 1000, 5000)
_every_plan = pytest.mark.parametrize(
    "layout",
    dict.fromkeys(  # in one order: the processes of pytest-xdist compare theirs
        plan(dtype, dim, codes, metric, device)
        for dtype, dim, codes, metric, device in itertools.product(
            (torch.float32, torch.bfloat16), _DIMS, _CODES, ("l2", "cosine"), _DEVICES.values()
        )
    ),
    ids=str,
)


@_every_plan
def test_a_group_is_neighbouring_codes_in_columns_that_one_thread_owns(layout: Plan) -> None:
    """Columns 8 j + 2 slot and their right neighbours, of one fold of every tile of a step."""
    codes = 3 * layout.step_codes
    where = positions(layout, codes)
    assert torch.equal(where.sort().values, torch.arange(codes))
    step, column = where // layout.step_codes, where % layout.block_codes
    slot, fold = column // 2 % SLOTS, column // (layout.block_codes // layout.folds)
    owner = (step * layout.folds + fold) * SLOTS + slot
    assert torch.equal(owner, torch.arange(codes) // layout.group)


@_every_plan
def test_vectors_and_lanes_fit_into_their_columns(layout: Plan) -> None:
    assert layout.lanes >= (16 if not layout.packed else 11)
    assert layout.width & (layout.width - 1) == 0
    assert layout.group in (8, 16, 32)


@pytest.mark.parametrize("name", _DEVICES)
@pytest.mark.parametrize("dim", _DIMS)
def test_what_is_in_flight_fits_into_shared_memory(name: str, dim: int) -> None:
    device = _DEVICES[name]
    for dtype in (torch.float32, torch.bfloat16):
        layout = plan(dtype, dim, 8192, "l2", device)
        for products in layout.choices:
            if not layout.packed and not layout.resident(products, device):
                chunk, stages = layout.chunks(products, device)
                vectors = layout.block_rows + layout.block_codes
                parts = min(products, 2)
                assert 2 * vectors * (stages * parts * chunk + layout.lanes) <= device.shared
                assert layout.width % chunk == 0


@pytest.mark.parametrize("rows", [1, 300, 10_000, 10_000_000])
def test_few_rows_are_split_over_the_codes_until_the_device_is_busy(rows: int) -> None:
    device = _DEVICES["H200"]
    for dim, codes in ((8, 100), (8, 262144), (64, 1024), (256, 8192)):
        layout = plan(torch.float32, dim, codes, "l2", device)
        splits = layout.splits(rows, codes, device)
        blocks = -(-rows // layout.block_rows)
        assert splits in (1, 4, 32)
        assert splits <= max(1, layout.steps(codes))
        fewer, more = {4: 1, 32: 4}.get(splits, 0), {1: 4, 4: 32}.get(splits)
        assert 2 * blocks * fewer <= device.processors
        busy = 2 * blocks * splits > device.processors
        assert busy or more is None or more > layout.steps(codes)

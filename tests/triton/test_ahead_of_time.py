"""Every kernel of every op compiled for real GPUs, without one: what machine code must not hold.

The kernels are those that calls of the library launch, with the launches' own options.
"""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from benchmarks.aot import launches, sass
from benchmarks.aot.architectures import PROCESSORS
from benchmarks.aot.kernels import every_kernel

pytestmark = [
    pytest.mark.skipif(not sass.cuobjdump().exists(), reason="this triton has no cuobjdump"),
    pytest.mark.parametrize("arch", PROCESSORS),
]
_CANONICAL = {
    "certify",
    "rerank",
    "scan",
    "scan_cells",
    "normalize_codes",
    "move_codes",
    "decay_sizes",
    "revive",
}
_SOFT = {"log_sums", "probability_sums", "pull", "sample_codes"}
_IN_CELLS = {"nearest_centres", "cells_in_reach", "scan_cells"}
_MOST_STACK = 64
# 64-lane instructions per pair, the lists included, by the widest vectors that a limit is for. On
# sm_80 every comparison takes two operands, and on sm_100 scores are moved out of tensor memory.
_MOST_ALU = {80: {32: 1.7, 128: 2.8}, 90: {32: 1.1, 128: 2.6}, 100: {32: 1.8, 128: 3.4}}


def test_multiply_and_add_are_rounded_separately_where_bits_are_promised(arch: int) -> None:
    """Scores, normalised codes and the codebook's state; the launch has to switch fusion off."""
    apart = [k for k in every_kernel(arch) if k.launch.options.get("enable_fp_fusion") is False]
    assert {k.launch.name for k in apart} >= _CANONICAL
    assert [k.label for k in apart if "fma.rn.f64" in k.ptx] == []
    fused = {k.launch.name for k in every_kernel(arch)} - {k.launch.name for k in apart}
    assert not fused & _CANONICAL


def test_the_stack_is_small_and_nothing_that_goes_over_pairs_spills_in_a_loop(arch: int) -> None:
    """Spills show up as stack; what the tools call local stays 0."""
    stacks = {k.label: k.resources.stack for k in every_kernel(arch)}
    assert {label: stack for label, stack in stacks.items() if stack > _MOST_STACK} == {}
    spills = {
        k.label: k.spills_in_loops
        for k in every_kernel(arch)
        if k.per_pair is not None or k.launch.name in _SOFT | _IN_CELLS
    }
    assert spills
    assert {label: count for label, count in spills.items() if count} == {}


def test_a_block_of_every_kernel_fits_on_a_multiprocessor(arch: int) -> None:
    assert [k.label for k in every_kernel(arch) if k.blocks_per_processor < 1] == []


def test_every_triton_kernel_is_compiled(arch: int) -> None:
    """A kernel that no call launches would be one that nothing looks at."""
    compiled = {k.launch.function.fn for k in every_kernel(arch)}
    assert [kernel for kernel in launches.kernels() if kernel.fn not in compiled] == []


def test_a_pair_costs_few_instructions(arch: int) -> None:
    """All that a multiprocessor does 64 lanes of per clock, in the main loop of the screen."""
    screens = [k for k in every_kernel(arch) if k.launch.name == "screen"]
    assert screens
    for kernel in screens:
        width = kernel.launch.constants["WIDTH"]
        packed = kernel.launch.constants["PRODUCTS"] == 0
        limits = [most for widest, most in _MOST_ALU[arch].items() if packed or width <= widest]
        if limits and kernel.launch.constants["TILES"] * kernel.launch.constants["CODES"] >= 128:
            assert kernel.per_pair is not None
            assert kernel.per_pair["alu"] <= limits[0], kernel.label

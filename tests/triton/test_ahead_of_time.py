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
_MOST_STACK = 64


def test_multiply_and_add_are_rounded_separately_in_float64(arch: int) -> None:
    """Or the score would not be the same bits everywhere; the launch has to switch fusion off."""
    scores = [k for k in every_kernel(arch) if "mul.f64" in k.ptx or "mul.rn.f64" in k.ptx]
    assert scores
    assert [k.label for k in scores if "fma.rn.f64" in k.ptx] == []
    assert [k.label for k in scores if k.launch.options.get("enable_fp_fusion", True)] == []


def test_the_stack_is_small_and_no_loop_spills(arch: int) -> None:
    """Spills show up as stack; what the tools call local stays 0."""
    stacks = {k.label: k.resources.stack for k in every_kernel(arch)}
    assert {label: stack for label, stack in stacks.items() if stack > _MOST_STACK} == {}
    spills = {k.label: k.spills_in_loops for k in every_kernel(arch)}
    assert {label: count for label, count in spills.items() if count} == {}


def test_a_block_of_every_kernel_fits_on_a_multiprocessor(arch: int) -> None:
    assert [k.label for k in every_kernel(arch) if k.blocks_per_processor < 1] == []


def test_every_triton_kernel_is_compiled(arch: int) -> None:
    """A kernel that no call launches would be one that nothing looks at."""
    compiled = {k.launch.function.fn for k in every_kernel(arch)}
    assert [kernel for kernel in launches.kernels() if kernel.fn not in compiled] == []

"""The tool that looks at machine code: it sees launches, loops, spills and what each costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from benchmarks.aot import flow, launches, sass  # noqa: E402
from benchmarks.aot.architectures import PROCESSORS, blocks_per_processor  # noqa: E402
from benchmarks.aot.sass import Instruction  # noqa: E402

_needs_cuobjdump = pytest.mark.skipif(
    not sass.cuobjdump().exists(), reason="this triton has no cuobjdump"
)


@triton.jit
def _dots_kernel(
    a_ptr,  # (64, steps * 32) fp16
    b_ptr,  # (steps * 32, 64) fp16
    out_ptr,  # (64, 64) fp32
    steps,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr = 1.0,
):
    m, n, k = tl.arange(0, 64)[:, None], tl.arange(0, 64)[None, :], tl.arange(0, WIDTH)
    total = tl.zeros((64, 64), tl.float32)
    for step in range(0, steps):
        a = tl.load(a_ptr + m * steps * WIDTH + step * WIDTH + k[None, :])
        b = tl.load(b_ptr + (step * WIDTH + k[:, None]) * 64 + n)
        total = tl.maximum(tl.dot(a, b), total)
    tl.store(out_ptr + m * 64 + n, total * SCALE)


def _launch(arch: int, **options: Any) -> launches.Launch:
    a, b = torch.zeros(64, 320, dtype=torch.half), torch.zeros(320, 64, dtype=torch.half)

    def call() -> None:
        _dots_kernel[(1,)](a, b, torch.zeros(64, 64), 10, WIDTH=32, **options)

    (launch,) = launches.record(arch, call)
    return launch


def test_a_launch_is_recorded_with_its_arguments_and_options() -> None:
    launch = _launch(90, num_warps=8, enable_fp_fusion=False)
    assert launch.name == "dots"
    assert launch.constants == {"WIDTH": 32, "SCALE": 1.0}
    assert launch.options == {"num_warps": 8, "enable_fp_fusion": False}
    assert launch.values["steps"] == 10


@pytest.mark.parametrize("arch", PROCESSORS)
def test_the_compiled_kernel_is_that_of_the_launch(arch: int) -> None:
    compiled = launches.compiled(_launch(arch, num_warps=8))
    assert compiled.metadata.num_warps == 8
    assert f".target sm_{arch}" in compiled.asm["ptx"]


def test_launchers_see_the_gpu_that_is_compiled_for() -> None:
    seen: list[Any] = []

    def look() -> None:
        device = torch.device("cuda", 0)
        seen.append(torch.cuda.get_device_capability(device))
        seen.append(torch.cuda.get_device_properties(device).multi_processor_count)

    assert launches.record(90, look) == []
    assert seen == [(9, 0), 132]


@_needs_cuobjdump
@pytest.mark.parametrize(("arch", "warps"), [(80, 4), (80, 8), (90, 4), (100, 4)])
def test_the_matrix_instructions_of_the_main_loop_are_found(arch: int, warps: int) -> None:
    """64 x 64 x 32 in instructions of 16 x 8 x 16 by a warp, or of 64 x 64 x 16 by four."""
    code = sass.instructions(launches.compiled(_launch(arch, num_warps=warps)).asm["cubin"])
    loop = flow.main_loop(code)
    assert loop is not None
    counts = loop.counts()
    assert counts["mma"] == (64 * 64 * 32 // (16 * 8 * 16) // warps if arch == 80 else 2)
    maxima = 64 * 64 // (32 * warps)
    assert maxima <= counts["alu"] <= 3 * maxima
    assert counts["local"] == 0


@_needs_cuobjdump
def test_a_kernel_with_too_few_registers_is_seen_to_spill_in_its_loop() -> None:
    cubin = launches.compiled(_launch(80, num_warps=1, maxnreg=64)).asm["cubin"]
    code = sass.instructions(cubin)
    assert sass.resources(cubin).stack > 64
    assert sum(sass.spills(loop.instructions) for loop in flow.loops(code)) > 0
    assert sass.resources(cubin).registers <= 64


def _code(*lines: str) -> list[Instruction]:
    """One instruction every 16 bytes; "@P0 BRA 2" may jump to the third."""
    found = []
    for i, line in enumerate(lines):
        guard, _, rest = line.rpartition("@P0 ")
        name, _, target = rest.partition(" ")
        operands = hex(16 * int(target)) if target else "R1, R2"
        found.append(Instruction(16 * i, name, operands, "@P0" if line != rest else guard))
    return found


def test_loops_end_with_a_branch_back_and_hold_one_another() -> None:
    code = _code("MOV", "FADD", "FMNMX", "@P0 BRA 2", "LOP3.LUT", "@P0 BRA 1", "EXIT", "BRA 7")
    (outer,) = flow.loops(code)
    (inner,) = outer.inner
    assert [i.opcode for i in outer.own] == ["FADD", "LOP3.LUT", "BRA"]
    assert [i.opcode for i in inner.instructions] == ["FMNMX", "BRA"]
    assert outer.counts(trips=10) == {"fma": 1, "alu": 1 + 10, "other": 1 + 10}


def test_two_branches_to_one_address_are_one_loop() -> None:
    (loop,) = flow.loops(_code("FADD", "@P0 BRA 0", "FMNMX", "@P0 BRA 0", "EXIT"))
    assert len(loop.instructions) == 4
    assert loop.inner == ()


def test_a_slow_path_behind_the_end_is_no_loop_and_belongs_to_the_one_that_it_leaves() -> None:
    code = _code("FADD", "@P0 BRA 6", "FMNMX", "@P0 BRA 0", "FMUL", "EXIT", "SYNCS", "BRA 2")
    (loop,) = flow.loops(code)
    assert [i.opcode for i in loop.instructions] == ["FADD", "BRA", "FMNMX", "BRA", "SYNCS", "BRA"]
    assert flow.loops(_code("FADD", "@P0 BRA 5", "FMNMX", "FMUL", "EXIT", "SYNCS", "BRA 2")) == []


@pytest.mark.parametrize(
    ("guard", "operands", "expected"),
    [("", "0x70", True), ("@!P1", "0x70", False), ("", "!UP0, 0x70", False)],
)
def test_a_branch_with_a_condition_may_go_on(guard: str, operands: str, expected: bool) -> None:
    branch = Instruction(0, "BRA.U", operands, guard)
    assert (branch.target, branch.always_leaves) == (0x70, expected)


def test_the_main_loop_has_the_matrix_instructions_before_the_length() -> None:
    code = _code("HMMA.16816.F32", "@P0 BRA 0", *["FADD"] * 3, "@P0 BRA 2", "EXIT")
    loop = flow.main_loop(code)
    assert loop is not None
    assert loop.counts() == {"mma": 1, "other": 1}
    assert flow.main_loop(_code("FADD", "EXIT")) is None


@pytest.mark.parametrize(
    ("opcode", "kind"),
    [
        ("FMNMX3", "alu"),
        ("VIMNMX3.S32", "alu"),
        ("ISETP.GE.AND", "alu"),
        ("IADD3.X", "alu"),
        ("FFMA", "fma"),
        ("DADD", "fp64"),
        ("HMMA.16816.F32", "mma"),
        ("HGMMA.64x64x16.F32", "mma"),
        ("UTCHMMA.2CTA", "mma"),
        ("STL.128", "local"),
        ("LDL", "local"),
        ("IMAD.MOV.U32", "move"),
        ("IMAD.WIDE", "other"),
        ("LDS.128", "other"),
        ("UISETP.NE", "other"),
    ],
)
def test_kinds_of_instructions(opcode: str, kind: str) -> None:
    assert Instruction(0, opcode, "").kind == kind


@pytest.mark.parametrize(
    ("limit", "arguments", "expected"),
    [
        ("registers", (90, 8, 222, 0), 1),
        ("registers", (90, 8, 128, 0), 2),
        ("registers", (80, 4, 255, 0), 2),
        ("threads", (80, 8, 32, 0), 8),
        ("blocks", (90, 1, 32, 0), 32),
        ("shared memory", (80, 4, 64, 50_000), 3),
        ("shared memory", (90, 4, 64, 113 << 10), 2),
        ("shared memory", (90, 4, 64, 114 << 10), 1),
        ("tensor memory", (100, 4, 64, 0, 256), 2),
    ],
)
def test_blocks_on_a_multiprocessor(limit: str, arguments: tuple[int, ...], expected: int) -> None:
    assert blocks_per_processor(*arguments) == expected


def test_a_failing_call_leaves_no_gpu_behind() -> None:
    before = torch.cuda.get_device_capability, torch.empty

    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        launches.record(90, fail)
    assert (torch.cuda.get_device_capability, torch.empty) == before

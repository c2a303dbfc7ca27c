"""The Triton kernels compiled for real GPUs, without one: what the machine code must not hold."""

from __future__ import annotations

import functools
import importlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

ARCHITECTURES = (80, 90, 100)


@functools.cache
def _compiled(arch: int, l2: bool, x_type: str) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = importlib.import_module("vqkernels.backends.triton.nearest_code")
    function = kernel._nearest_code_kernel
    constants = {"IS_L2": l2, "BLOCK_N": kernel._BLOCK_N, "BLOCK_K": kernel._BLOCK_K}
    signature = dict.fromkeys(function.arg_names, "i32") | dict.fromkeys(constants, "constexpr")
    signature |= {"x_ptr": f"*{x_type}", "codebook_ptr": "*fp32"}
    signature |= {"indices_ptr": "*i64", "distances_ptr": "*fp32"}
    return triton.compile(
        ASTSource(fn=function, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", arch, 32),
        options={"enable_fp_fusion": False},  # as the launcher sets it
    )


@pytest.mark.parametrize("x_type", ["fp32", "bf16"])
@pytest.mark.parametrize("l2", [True, False], ids=["l2", "cosine"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_multiply_and_add_are_rounded_separately(arch: int, l2: bool, x_type: str) -> None:
    ptx = _compiled(arch, l2, x_type).asm["ptx"]
    assert "fma.rn.f64" not in ptx
    assert "mul.rn.f64" in ptx or "mul.f64" in ptx


@pytest.mark.parametrize("l2", [True, False], ids=["l2", "cosine"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_spills(arch: int, l2: bool, tmp_path: Path) -> None:
    """Spills show up as STACK; LOCAL stays 0."""
    found = sorted(Path(triton.__file__).parent.rglob("cuobjdump*"))
    if not found:
        pytest.skip("this triton has no cuobjdump")
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(_compiled(arch, l2, "fp32").asm["cubin"])
    usage = subprocess.run(
        [str(found[0]), "--dump-resource-usage", str(cubin)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert " STACK:0 " in usage, usage


def test_the_launcher_switches_fusion_off() -> None:
    """The gate above compiles by itself; the option must also be in the launch."""
    kernel = importlib.import_module("vqkernels.backends.triton.nearest_code")
    assert "enable_fp_fusion=False" in Path(kernel.__file__).read_text()

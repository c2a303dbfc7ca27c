"""What nvcc made of the CUDA kernels, and what is said where they cannot run. Needs no GPU."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backends import native_core

from vqkernels.backends import native
from vqkernels.ops import dispatch

CORE: Any = native_core()
HAS_CUDA = hasattr(CORE, "cuda")
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="native is not built with CUDA")


def _cuobjdump() -> str | None:
    """That of the CUDA toolkit, or the one in triton's wheel."""
    triton = importlib.util.find_spec("triton")
    if shutil.which("cuobjdump") or triton is None or triton.origin is None:
        return shutil.which("cuobjdump")
    found = sorted(Path(triton.origin).parent.rglob("cuobjdump"))
    return str(found[0]) if found else None


@functools.cache
def _dump(*options: str, folder: Path | None = None) -> str:
    tool = _cuobjdump()
    if tool is None:
        pytest.skip("needs cuobjdump")
    command = [tool, *options, CORE.__file__]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def _built_for() -> list[str]:
    return re.findall(r"sm_\d+", CORE.build_info()["CUDA"])


@needs_cuda
def test_there_is_machine_code_per_architecture_and_ptx_for_later_ones() -> None:
    architectures = _built_for()
    assert architectures[:2] == ["sm_80", "sm_90"]
    assert set(re.findall(r"\.(sm_\d+)\.cubin", _dump("-lelf"))) == set(architectures)
    assert set(re.findall(r"\.(sm_\d+)\.ptx", _dump("-lptx"))) == {architectures[-1]}


@needs_cuda
def test_no_kernel_spills() -> None:
    """Spills show up as STACK; LOCAL stays 0."""
    usage = re.findall(r"STACK:(\d+) .*?LOCAL:(\d+)", _dump("-res-usage"))
    kernels = _dump("-sass", "-arch", "sm_90").count("Function :")
    assert kernels > 0
    assert len(usage) == kernels * len(_built_for())
    assert set(usage) == {("0", "0")}


@needs_cuda
def test_multiply_and_add_are_rounded_separately(tmp_path: Path) -> None:
    _dump("-xptx", "all", folder=tmp_path)
    code = "".join(path.read_text() for path in tmp_path.glob("*.ptx"))
    assert "mul.rn.f64" in code
    assert "fma.rn.f32" in code  # the scan, which the bound covers
    assert not re.search(r"\bfma\.[a-z.]*f64\b", code)
    assert not re.search(r"\bmad\.[a-z.]*f64\b", code)


@needs_cuda
@pytest.mark.parametrize("kernel", ["settle", "publish", "decideILNS_6MetricE0"])
def test_the_canonical_score_has_no_fused_instruction(kernel: str) -> None:
    """The others take a root or divide, which ptxas makes of fused instructions."""
    functions = _dump("-sass", "-arch", "sm_90").split("Function : ")[1:]
    codes = [code for code in functions if kernel in code.split("\n", 1)[0]]
    assert codes
    assert not any("DFMA" in code for code in codes)
    assert all("DADD" in code for code in codes if kernel != "publish")


@needs_cuda
def test_neither_the_driver_nor_the_runtime_is_needed_to_import() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    command = ["readelf", "-d", CORE.__file__]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", listing)
    assert not [name for name in needed if "cuda" in name]


def _on_cuda() -> Any:
    """What dispatch reads of a tensor on a CUDA device."""
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32)


@needs_cuda
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_driver_is_a_reason_and_no_failure() -> None:
    reason = dispatch.why_not("nearest_code", "native", _on_cuda(), None)
    assert reason is not None
    assert reason.startswith(
        "backend='native' must have a device and a driver that its CUDA kernels fit, got "
    )
    assert "built with CUDA" in reason


@pytest.mark.parametrize("op", ["nearest_code", "code_sums"])
def test_dispatch_takes_native_where_its_kernels_run(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(reason: str | None) -> Callable[[torch.device], str | None]:
        return lambda device: reason

    monkeypatch.setattr(native, "cuda_missing", answers(None))
    assert dispatch.choose(op, _on_cuda(), None, "native") == "native"
    assert dispatch.choose("lookup", _on_cuda(), None, "native") == "reference"
    monkeypatch.setattr(native, "cuda_missing", answers("no device"))
    assert dispatch.choose(op, _on_cuda(), None, None) != "native"
    with pytest.raises(RuntimeError, match=r"^no device$"):
        dispatch.choose(op, _on_cuda(), None, "native")


def test_a_build_without_cuda_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("vqkernels.backends.native._core")
    monkeypatch.setattr(module, "core", SimpleNamespace())
    reason = native.cuda_missing(torch.device("cuda", 0))
    assert reason is not None
    assert "VQK_CUDA=on" in reason

"""What an isolated ``pip wheel .`` puts into the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from backends import native_core

ROOT = Path(__file__).parents[2]
LARGEST_EXTENSION = 8 << 20  # 4 MB with four architectures and the CUDA runtime, 1 MB without
GPU_CODE = b".nv_fatbin"  # the section that nvcc puts it in


@pytest.fixture
def clean_copy(tmp_path: Path) -> Path:
    """The files that git tracks or would track: no build folder, no stray extension."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return tmp_path / "source"


def _wheel(source: Path, native: str) -> zipfile.ZipFile:
    """Isolated: pip makes an environment from [build-system] alone, without torch."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", "out", "."],
        cwd=source,
        env={**_environment(), "VQK_NATIVE": native},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (source / "out").glob("vqkernels-*.whl")
    return zipfile.ZipFile(wheel)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _expected(source: Path) -> set[str]:
    """Every file of both packages that is not a cache."""
    found = {path.relative_to(source) for path in (source / "vqkernels").rglob("*.*")}
    trained = source / "python"
    found |= {path.relative_to(trained) for path in (trained / "vqtrain").rglob("*.*")}
    return {str(path) for path in found}


def test_an_isolated_wheel_holds_both_packages_and_the_extension(clean_copy: Path) -> None:
    expected = _expected(clean_copy)
    wheel = _wheel(clean_copy, native="on")
    names = set(wheel.namelist())
    assert expected <= names
    assert {"vqkernels/py.typed", "vqkernels/functional.py", "vqtrain/cli.py"} <= names
    assert any(name.startswith("vqtrain/") and name.endswith(".yaml") for name in names)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert tag in wheel.filename
    (extension,) = [name for name in names if name.endswith(".so")]
    assert extension.startswith("vqkernels/_native.")
    foreign = {name.split("/")[0] for name in names} - {"vqkernels", "vqtrain"}
    assert all(name.endswith(".dist-info") for name in foreign)
    compiled = wheel.read(extension)
    assert len(compiled) < LARGEST_EXTENSION
    core = native_core()
    if core is not None and hasattr(core, "cuda"):  # so nvcc works here
        assert GPU_CODE in compiled


def test_native_off_gives_a_pure_wheel(clean_copy: Path) -> None:
    wheel = _wheel(clean_copy, native="off")
    assert wheel.filename.endswith("-py3-none-any.whl")
    assert not [name for name in wheel.namelist() if name.endswith(".so")]
    assert _expected(clean_copy) <= set(wheel.namelist())


def test_without_a_compiler_the_install_fails_with_the_reason(clean_copy: Path) -> None:
    """Never a silent pure-Python install."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", "out", "."],
        cwd=clean_copy,
        env={**_environment(), "CXX": "/nonexistent/c++", "VQK_NATIVE": "on"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "VQK_NATIVE=off" in done.stdout + done.stderr


def _build(source: Path, **variables: str) -> str:
    """What a build in place prints that has to fail."""
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=source,
        env={**_environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return " ".join((done.stdout + done.stderr).split())  # cmake breaks its lines


def test_cuda_on_without_nvcc_fails_with_the_reason(clean_copy: Path) -> None:
    """Never a silent build without the GPU kernels."""
    printed = _build(clean_copy, VQK_CUDA="on", CUDACXX="/nonexistent/nvcc")
    assert "nvcc must be CUDA 11.8 or newer for VQK_CUDA=on, got none" in printed
    assert "VQK_CUDA=off" in printed


def test_an_unknown_choice_of_cuda_is_named(clean_copy: Path) -> None:
    printed = _build(clean_copy, VQK_CUDA="yes")
    assert "VQK_CUDA must be one of ('auto', 'on', 'off'), got 'yes'" in printed

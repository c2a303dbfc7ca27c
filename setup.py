"""Builds the native core with CMake. Everything else about the package is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
REMEDY = (
    "Install a C++17 compiler (Debian: apt install g++) and try again, or set VQK_NATIVE=off to "
    "install without the native core and run on the slower reference backend. VQK_CUDA=off leaves "
    "only the GPU kernels out."
)
CUDA_CHOICES = ("auto", "on", "off")


def tool(name: str) -> str:
    """The build tool that pip put beside this interpreter, or the first one on PATH."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    path = shutil.which(name, path=places)
    if path is None:
        raise SystemExit(
            f"vqkernels: the native core must be built with {name}, got none. {REMEDY}"
        )
    return path


def cuda_choice() -> str:
    """VQK_CUDA: auto builds csrc/cuda where nvcc works, on insists, off never does."""
    choice = os.environ.get("VQK_CUDA") or "auto"
    if choice not in CUDA_CHOICES:
        raise SystemExit(f"VQK_CUDA must be one of {CUDA_CHOICES}, got {choice!r}")
    return choice


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        import pybind11

        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        # Kept between builds; named by interpreter, because the extension is.
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        configure = {
            # An isolated build leaves the path of a deleted ninja in the cache.
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": library.parent,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "VQK_CUDA": cuda_choice(),
        }
        cmake = [tool("cmake"), "-S", ROOT, "-B", build, "-G", "Ninja"]
        try:
            subprocess.run([*cmake, *(f"-D{k}={v}" for k, v in configure.items())], check=True)
            subprocess.run([cmake[0], "--build", build], check=True)
        except subprocess.CalledProcessError as failure:
            raise SystemExit(
                f"vqkernels: the native core must compile, got the errors above. {REMEDY}"
            ) from failure


native = os.environ.get("VQK_NATIVE") != "off"
packages = find_packages(include=["vqkernels*"])
directories = {}
if (ROOT / "python" / "vqtrain").is_dir():
    packages += find_packages("python", include=["vqtrain*"])
    directories["vqtrain"] = "python/vqtrain"

setup(
    packages=packages,
    package_dir=directories,
    package_data={
        "vqkernels": ["py.typed"],
        "vqtrain": ["py.typed", "**/*.html", "**/*.json", "**/*.yaml"],
    },
    ext_modules=[Extension("vqkernels._native", sources=[])] if native else [],
    cmdclass={"build_ext": CMakeBuild},
)

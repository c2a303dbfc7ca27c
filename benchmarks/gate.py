"""No speed is printed for an op whose tests fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.machine import ROOT

# What must pass before a table is measured: exactness at every level and any thread count on all
# data of the case table, and for a step the values, the gradients and the update.
TESTS = {
    "nearest_code": (
        "tests/ops/test_nearest_code.py::test_equals_the_oracle",
        "tests/native/test_isa.py::test_search_is_the_oracle_at_any_thread_count",
    ),
    "residual_quantize": ("tests/ops/test_residual.py",),
    "training_step": (
        "tests/ops/test_vq_forward.py::test_agrees_with_the_textbook_in_float64",
        "tests/ops/test_vq_backward.py::test_gradients_are_within_the_error_budget",
        "tests/ops/test_ema_update.py",
        "tests/nn/test_ema.py",
        "tests/nn/test_residual_vq.py",
    ),
    "pruned_search": ("tests/ops/test_pruned_search.py",),
    "pruned_step": ("tests/ops/test_pruned_search.py", "tests/nn/test_ema.py"),
    "code_sampling": ("tests/pipeline/test_pixelcnn.py",),
    "converted_step": (
        "tests/ops/test_vq_forward.py::test_agrees_with_the_textbook_in_float64",
        "tests/ops/test_vq_backward.py::test_gradients_are_within_the_error_budget",
        *(
            f"tests/compat/test_{name}.py"
            for name in (
                *("convert", "vqp_convert", "vqp_vector_quantize", "diffusers", "taming"),
                *("zalando", "rosinality", "encodec", "transformers_codecs", "dac"),
            )
        ),
    ),
}

# On a GPU everything that is marked for one.
ON_CUDA = ("-m", "gpu", "tests")
# Benchmarks on the CPU are float32: the other dtypes are left to `make test`.
_FLOAT32 = "not float16 and not bfloat16"


def passes(
    tables: Iterable[str], device: str = "cpu", run: Callable[..., Any] = subprocess.run
) -> bool:
    """Runs the tests of ``tables`` on a kind of device; True when all of them pass."""
    tests = dict.fromkeys(test for table in tables for test in TESTS[table])
    selected = ON_CUDA if device == "cuda" else ("-k", _FLOAT32, *tests)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:benchmark", "-p", "no:xdist"]
    return run([*command, *selected], cwd=ROOT, check=False).returncode == 0

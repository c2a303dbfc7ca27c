"""Every instruction-set level returns the same bits as the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import cases
import numpy as np
import oracle
import pytest
import torch
from backends import isa_levels, native_core

import vqkernels as vq

pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")


@pytest.fixture(params=isa_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    core = native_core()
    before = core.isa()
    core.force_isa(request.param)
    yield request.param
    core.force_isa(before)


def test_a_forced_level_is_the_active_one(level: str) -> None:
    assert native_core().isa() == level


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_search_equals_the_oracle(level: str, dtype: torch.dtype, metric: str) -> None:
    for name in cases.SEARCH:
        x, codebook = cases.search(name, dtype)
        found = vq.nearest_code(x, codebook, metric=metric, backend="native")
        indices, distances = oracle.on_case(name, dtype, metric)
        np.testing.assert_array_equal(found.indices.numpy(), indices, err_msg=name)
        np.testing.assert_array_equal(found.distances.numpy(), distances, err_msg=name)


@pytest.mark.parametrize("metric", cases.METRICS)
def test_odd_shapes_equal_the_oracle(level: str, metric: str) -> None:
    for shape in cases.SHAPES:
        x, codebook = cases.gaussian(*shape)
        found = vq.nearest_code(x, codebook, metric=metric, backend="native")
        indices, _ = oracle.nearest_code(x, codebook, metric)
        np.testing.assert_array_equal(found.indices.numpy(), indices, err_msg=str(shape))


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
def test_steps_agree_with_the_reference(level: str, metric: str, estimator: str) -> None:
    """Integers are equal; values differ by no more than one rounding of a float64 result."""
    x, codebook = cases.gaussian(1000, 61, 13)
    results = {}
    for backend in ("native", "reference"):
        leaves = x.clone().requires_grad_(), codebook.clone().requires_grad_()
        out = vq.vector_quantize(*leaves, metric=metric, estimator=estimator, backend=backend)
        (out.quantized.square().sum() + out.loss).backward()
        results[backend] = (
            (out.quantized, out.indices, out.usage.counts),
            (
                out.loss,
                *(leaf.grad for leaf in leaves),
            ),
        )
    for got, expected in zip(*(results[name][0] for name in results), strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(*(results[name][1] for name in results), strict=True):
        eps = torch.finfo(torch.float32).eps
        assert float((got - expected).detach().abs().max()) <= 2 * eps * float(
            expected.detach().abs().max()
        )


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", isa_levels())
def test_the_environment_forces_a_level(name: str) -> None:
    done = _python("from vqkernels import _native; print(_native.isa())", VQK_ISA=name)
    assert done.stdout.strip() == name, done.stderr


def test_an_unknown_level_is_a_value_error() -> None:
    done = _python(
        "import torch, vqkernels as vq; vq.nearest_code(torch.ones(2, 2), torch.ones(2, 2))",
        VQK_ISA="mmx",
    )
    assert done.returncode != 0
    assert "ValueError" in done.stderr
    assert "mmx" in done.stderr


def test_forcing_an_unknown_level_changes_nothing() -> None:
    before = native_core().isa()
    with pytest.raises(ValueError, match="mmx"):
        native_core().force_isa("mmx")
    assert native_core().isa() == before

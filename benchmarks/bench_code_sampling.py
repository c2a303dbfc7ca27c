"""Sampling codes with a cache against a plain forward per position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks import code_sampling, gate, machine, results
from benchmarks.code_sampling import CASES, TABLE, THREADS, SamplingCase
from benchmarks.timing import Effort, Samples


@pytest.fixture(scope="module", autouse=True)
def _gate_and_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    options = request.config.option
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.exit("--device must be one that is here, got cuda", returncode=1)
    if not options.tiny and not gate.passes([TABLE], device.type):
        pytest.exit("the tests fail: no benchmark is run", returncode=1)
    machine.limit_threads(THREADS)
    yield
    machine.limit_threads(options.threads)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_code_sampling(
    case: SamplingCase,
    request: pytest.FixtureRequest,
    where: results.Row,
    benchmark: Any,
    replay: Callable[[Samples], None],
) -> None:
    options = request.config.option
    device = torch.device(options.device)
    effort = Effort(options.rounds or 5, options.seconds or 20.0)
    measured = code_sampling.measure(case.tiny() if options.tiny else case, device, effort)
    rows = code_sampling.rows(case, measured, {**where, "machine": machine.name(device, THREADS)})
    if not options.tiny:
        results.save(TABLE, device.type, rows, options.results)
    benchmark.extra_info.update(rows[0])
    replay(measured.cached)
    assert measured.other == 0, "the cached sampler draws other codes than the plain forward"

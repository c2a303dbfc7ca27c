"""``pytest benchmarks``: options, one test per case and contender, the gate, the rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import fresh, gate, machine, peers, results, words
from benchmarks.laboratory import Contender, Laboratory
from benchmarks.replay import Clock
from benchmarks.timing import Effort, Samples

_CLOCK = Clock()
_ROWS = pytest.StashKey[list[results.Row]]()
_EFFORTS = {"short": Effort(rounds=9, seconds=1.0), "full": Effort(rounds=15, seconds=3.0)}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vqkernels")
    group.addoption("--device", default="cpu", help="cpu or cuda")
    group.addoption("--full", action="store_true", help="all cases and contenders")
    group.addoption(
        "--tiny",
        action="store_true",
        help="the cases of a GPU with few rows and codes, on any device; keeps no rows",
    )
    group.addoption("--threads", type=int, default=machine.default_threads(), help="on the CPU")
    group.addoption("--rounds", type=int, help="samples of every contender, at most")
    group.addoption("--seconds", type=float, help="of samples of every contender, about")
    group.addoption("--results", type=Path, default=results.FOLDER, help="folder of the rows")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "contender" not in metafunc.fixturenames:
        return
    full = metafunc.config.getoption("--full")
    table = metafunc.module.TABLE
    device = torch.device(metafunc.config.getoption("--device"))
    tiny = metafunc.config.getoption("--tiny")
    cases = [c for c in metafunc.module.CASES if c.device == ("cuda" if tiny else device.type)]
    if tiny:
        cases = list(dict.fromkeys(case.tiny() for case in cases))
    contenders = [
        Contender(table, case, provider)
        for case in cases
        if full or case.short
        for provider in peers.TABLES[table]
        if metafunc.module.takes_part(case, provider)
        if full or not provider.full_only
        # A backend of ours for another device is no contender.
        if not provider.ours or device.type in provider.devices
    ]
    metafunc.parametrize("contender", contenders, ids=lambda contender: contender.label)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=_CLOCK))


@pytest.fixture(scope="session")
def laboratory(request: pytest.FixtureRequest) -> Iterator[Laboratory]:
    """What is measured together is what was selected."""
    options = request.config.option
    found = [_contender(item) for item in request.session.items]
    contenders = [contender for contender in found if contender is not None]
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.exit("--device must be one that is here, got cuda", returncode=1)
    tables = dict.fromkeys(contender.table for contender in contenders)
    if not options.tiny and not gate.passes(tables, device.type):
        pytest.exit("the tests fail: no benchmark is run", returncode=1)
    machine.limit_threads(options.threads)
    effort = _EFFORTS["full" if options.full else "short"]
    effort = Effort(options.rounds or effort.rounds, options.seconds or effort.seconds)
    with fresh.compiling_afresh():
        yield Laboratory(contenders, device, options.threads, effort)


@pytest.fixture(scope="session")
def where(request: pytest.FixtureRequest) -> results.Row:
    """What is the same for every row of this run."""
    options = request.config.option
    device = torch.device(options.device)
    return machine.where(device, options.threads)


@pytest.fixture
def replay(benchmark: Any) -> Callable[[Samples], None]:
    """Hands samples to pytest-benchmark."""
    return functools.partial(_CLOCK.replay, benchmark)


@pytest.fixture
def measured(
    request: pytest.FixtureRequest,
    laboratory: Laboratory,
    where: results.Row,
    benchmark: Any,
    replay: Callable[[Samples], None],
) -> Callable[[Contender], None]:
    """Measures a contender, keeps its row, and hands its samples to pytest-benchmark."""

    options = request.config.option
    device = torch.device(options.device)

    def measure(contender: Contender) -> None:
        outcome = laboratory.outcome(contender)
        row = results.row(contender, outcome, where)
        if not options.tiny:
            results.save(contender.table, device.type, [row], options.results)
        request.config.stash.setdefault(_ROWS, []).append(row)
        if outcome.samples is None:
            failed = outcome.failed and contender.provider.ours
            (pytest.fail if failed else pytest.skip)(str(outcome.reason))
        benchmark.group = f"{contender.table}: {contender.case.together}"
        benchmark.extra_info.update(row)
        replay(outcome.samples)

    return measure


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("in turns with vqkernels")
        for name, listed in words.cases(rows).items():
            table = [list(words.HEADINGS), *map(words.cells, listed)]
            terminalreporter.write_line(f"\n{name}\n{words.columns(table)}")


def _contender(item: pytest.Item) -> Contender | None:
    call = getattr(item, "callspec", None)
    found = call.params.get("contender") if call is not None else None
    return found if isinstance(found, Contender) else None

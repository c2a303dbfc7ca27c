"""What becomes of contenders that are right, wrong, slow to allocate or not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from speed_cases import SpeedCase
from torch import Tensor

from benchmarks import fresh, laboratory, results, truth, words
from benchmarks.laboratory import Contender, Laboratory, Outcome
from benchmarks.peers import OURS, Call, Provider, UnavailableError
from benchmarks.timing import Effort

CASE = SpeedCase(40, 9, 3)


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fresh, "first_call_seconds", lambda job: 1.0)
    monkeypatch.setattr(fresh, "peak_extra_bytes", lambda job: 2)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _exact(x: Tensor, codebook: Tensor) -> Call:
    found = truth.nearest(x, codebook).indices
    return lambda: found


def _all_zero(x: Tensor, codebook: Tensor) -> Call:
    return lambda: torch.zeros(len(x), dtype=torch.int64)


def _broken(x: Tensor, codebook: Tensor) -> Call:
    raise RuntimeError("no such kernel\nand more lines")


def _unavailable(x: Tensor, codebook: Tensor) -> Call:
    raise UnavailableError("this CPU lacks it")


def _measured(*providers: Provider) -> dict[str, Outcome]:
    contenders = [Contender("nearest_code", CASE, provider) for provider in providers]
    lab = Laboratory(contenders, torch.device("cpu"), 1, Effort(3, 0.1))
    return {contender.provider.name: lab.outcome(contender) for contender in contenders}


OURS_EXACT = Provider(OURS, _exact, package="vqkernels", module="vqkernels")


def test_ratio_wrong_rows_and_spread_of_a_peer() -> None:
    found = _measured(OURS_EXACT, Provider("peer", _all_zero))
    assert found[OURS].wrong == (0, 0)
    assert found[OURS].times_ours == (1.0, 1.0, 1.0)
    peer = found["peer"]
    assert peer.wrong is not None
    assert peer.wrong.rows > 0
    assert peer.samples is not None
    assert len(peer.samples.seconds) == 3
    assert peer.times_ours is not None
    assert (peer.first_call, peer.extra_bytes) == (1.0, 2)


def test_a_peer_that_fails_is_shown_with_its_reason_and_stops_nobody() -> None:
    found = _measured(OURS_EXACT, Provider("peer", _broken))
    assert found["peer"].reason == "RuntimeError: no such kernel"
    assert found["peer"].samples is None
    assert found[OURS].samples is not None


def test_what_the_machine_lacks_is_no_failure() -> None:
    outcome = _measured(OURS_EXACT, Provider("peer", _unavailable))["peer"]
    assert (outcome.reason, outcome.failed) == ("this CPU lacks it", False)


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (Provider("peer", _exact, module="no_such_module"), "not installed"),
        (Provider("peer", _exact, devices=("cuda",)), "does not run on cpu"),
        (Provider("peer", _exact, bytes_per_pair=1 << 40), "its N x K matrices take"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contender_that_cannot_run_says_why(provider: Provider, reason: str) -> None:
    found = _measured(OURS_EXACT, provider)["peer"].reason
    assert found is not None
    assert found.startswith(reason)


def test_no_speed_of_anyone_is_shown_where_one_of_ours_is_wrong() -> None:
    level = Provider("vqkernels avx2", _all_zero, package="vqkernels", module="vqkernels")
    found = _measured(OURS_EXACT, level, Provider("peer", _exact))
    assert all(outcome.samples is None and outcome.failed for outcome in found.values())
    assert "vqkernels avx2 is wrong" in str(found["peer"].reason)


def test_only_what_was_selected_of_the_same_group_is_measured() -> None:
    made: list[str] = []

    def build(name: str) -> Provider:
        def make(x: Tensor, codebook: Tensor) -> Call:
            made.append(name)
            return _exact(x, codebook)

        return Provider(name, make)

    other = SpeedCase(41, 9, 3)
    contenders = [Contender("nearest_code", CASE, build("a")), Contender("t", other, build("b"))]
    lab = laboratory.Laboratory(contenders, torch.device("cpu"), 1, Effort(3, 0.1))
    assert lab.outcome(contenders[0]).times_ours is None
    assert made == ["a"]


def test_what_gets_a_codebook_ready_has_no_share_of_the_peak_and_facts_are_kept() -> None:
    told = Provider(
        "peer", _exact, searches=False, facts=lambda x, codebook: {"of": len(codebook)}
    )
    contenders = [Contender("nearest_code", CASE, provider) for provider in (OURS_EXACT, told)]
    lab = Laboratory(contenders, torch.device("cpu"), 1, Effort(3, 0.1))
    where = {"machine": "m", "commit": "c", "measured": "now"}
    ours, row = (results.row(c, lab.outcome(c), where) for c in contenders)
    assert ours["tflops"] > 0
    assert (row["peak_share"], row["tflops"], row["of"]) == (None, None, CASE.k)
    assert words.share(row) == "not measured"

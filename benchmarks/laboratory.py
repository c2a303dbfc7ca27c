"""Measures contenders: the cases of one group together, when the first of them is asked for.

A contender that cannot run or fails is a result too, with its reason.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from speed_cases import SpeedCase
from torch import Tensor

from benchmarks import fresh, machine, memory, truth
from benchmarks.peers import OURS, Call, Provider, UnavailableError
from benchmarks.timing import Effort, Quartiles, Samples, interleaved, quartiles, ratios


class Contender(NamedTuple):
    table: str
    case: SpeedCase
    provider: Provider

    @property
    def label(self) -> str:
        return f"{self.case.name} | {self.provider.name}"


@dataclasses.dataclass
class Outcome:
    """Of one contender; either ``reason`` says why nothing was measured, or the rest is there.

    Attributes:
        failed: the reason is an error, or a wrong result of ours.
        facts: what else the provider tells about the case.
        samples: seconds per call.
        times_ours: its time over that of vqkernels on the same case, round by round.
        peak: operations per second of the FMA loop in the same rounds; None: not measured here.
        wrong: rows that are not the nearest code in float64, of those that were judged.
        judged: how many were.
        extra_bytes: peak memory of a call beyond what was held before it.
        first_call: seconds of the first call of a process.
    """

    reason: str | None = None
    failed: bool = False
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    samples: Samples | None = None
    times_ours: Quartiles | None = None
    peak: Quartiles | None = None
    wrong: truth.Wrong | None = None
    judged: int = 0
    extra_bytes: int | None = None
    first_call: float | None = None


# Rows of a case on a GPU that are judged in float64: those of a million would take minutes.
_JUDGED_ON_CUDA = 8192


class Laboratory:
    def __init__(
        self, contenders: list[Contender], device: torch.device, threads: int, effort: Effort
    ) -> None:
        self._contenders = contenders
        self._device, self._threads, self._effort = device, threads, effort
        self._outcomes: dict[Contender, Outcome] = {}
        # By case and search: contenders with the same search have the same settings.
        self._settings: dict[tuple[SpeedCase, Any], dict[str, Any]] = {}

    def outcome(self, contender: Contender) -> Outcome:
        if contender not in self._outcomes:
            group = (contender.table, contender.case.together)
            self._measure([c for c in self._contenders if (c.table, c.case.together) == group])
        return self._outcomes[contender]

    def _measure(self, group: list[Contender]) -> None:
        inputs = {case: case.make(self._device) for case in dict.fromkeys(c.case for c in group)}
        rows = _JUDGED_ON_CUDA if self._device.type == "cuda" else None
        judges = {case: truth.judge(*pair, rows, case.metric) for case, pair in inputs.items()}
        calls = {}
        for contender in group:
            outcome = self._outcomes[contender] = Outcome()
            outcome.reason = contender.provider.refusal(
                contender.case.n, contender.case.k, self._device
            )
            if outcome.reason is None:
                try:
                    calls[contender] = self._prepare(
                        contender, outcome, *inputs[contender.case], judges[contender.case]
                    )
                except UnavailableError as error:
                    outcome.reason = str(error)
                except Exception as error:
                    outcome.reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                    outcome.failed = True
        for case in inputs:
            self._refuse_if_we_are_wrong([c for c in group if c.case == case], calls)
        peaks: list[float | None] = []
        samples = interleaved(
            calls,
            self._device,
            self._effort,
            lambda: peaks.append(self._peak()),
        )
        measured = [peak for peak in peaks if peak is not None]
        for contender, taken in samples.items():
            outcome = self._outcomes[contender]
            ours = next(
                (s for c, s in samples.items() if c.case == contender.case and _is_ours(c)), None
            )
            outcome.samples = taken
            outcome.times_ours = ratios(taken.seconds, ours.seconds) if ours else None
            if measured and contender.provider.searches:
                outcome.peak = quartiles(measured)

    def _prepare(
        self,
        contender: Contender,
        outcome: Outcome,
        x: Tensor,
        codebook: Tensor,
        judge: truth.Judge,
    ) -> Call:
        """The call to time, after everything that is measured once."""
        provider = contender.provider
        tuning = (contender.case, provider.settings)
        if tuning not in self._settings:
            self._settings[tuning] = provider.settings(x, codebook)
        outcome.settings = self._settings[tuning]
        outcome.facts = provider.facts(x, codebook)
        arguments = {**contender.case.arguments, **outcome.settings}
        build = functools.partial(provider.build, x, codebook, **arguments)
        if self._device.type == "cuda":
            call, found = self._first_call(provider, outcome, build)
        else:
            arrays = x.float().numpy(), codebook.numpy()
            job = fresh.Job(
                contender.table, provider.name, *arrays, arguments, x.dtype, self._threads
            )
            outcome.first_call = fresh.first_call_seconds(job)
            outcome.extra_bytes = fresh.peak_extra_bytes(job)
            call = build()
            found = provider.indices(call())
        outcome.wrong = judge(found)
        outcome.judged = min(len(x), _JUDGED_ON_CUDA) if self._device.type == "cuda" else len(x)
        return call

    def _first_call(
        self, provider: Provider, outcome: Outcome, build: Callable[[], Call]
    ) -> tuple[Call, Tensor]:
        """In this process: another one would need seconds to reach the GPU.

        So a first call does not compile again what a case before it has compiled.
        """
        torch.cuda.synchronize(self._device)
        started = time.perf_counter()
        call = build()
        found = call()
        torch.cuda.synchronize(self._device)
        outcome.first_call = time.perf_counter() - started
        found = provider.indices(found).clone()
        torch.cuda.empty_cache()  # others allocate past torch
        if not provider.own_memory:
            outcome.extra_bytes = memory.peak_extra(call, self._device)
        return call, found

    def _refuse_if_we_are_wrong(
        self, contenders: list[Contender], calls: dict[Contender, Any]
    ) -> None:
        """No speed of anyone is shown on a case where one of ours is not exact."""
        for contender in contenders:
            wrong = self._outcomes[contender].wrong
            if contender.provider.ours and wrong is not None and any(wrong):
                for refused in contenders:
                    outcome = self._outcomes[refused]
                    outcome.reason = f"{contender.provider.name} is wrong: {wrong}"
                    outcome.failed = True
                    calls.pop(refused, None)
                return

    def _peak(self) -> float | None:
        return machine.fma_peak(self._threads) if self._device.type == "cpu" else None


def _is_ours(contender: Contender) -> bool:
    return contender.provider.name == OURS

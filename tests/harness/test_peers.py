"""Every contender does the job that it is timed for."""

from __future__ import annotations

import cases
import pytest
import speed_cases
import torch
from speed_cases import SpeedCase

from benchmarks import bench_converted_step, peers, truth
from benchmarks.peers import OURS, Provider

_CASES = [
    ("nearest_code", SpeedCase(300, 40, 6)),
    ("residual_quantize", SpeedCase(300, 40, 6, levels=3)),
    ("training_step", SpeedCase(300, 40, 6)),
    ("training_step", SpeedCase(300, 40, 6, levels=3)),
    ("pruned_search", SpeedCase(300, 40, 6)),
    ("pruned_step", SpeedCase(300, 40, 6)),
    *dict.fromkeys(  # a power of two of codes, because Mimi takes no other number
        ("converted_step", case._replace(n=300, k=32, d=6, data="Gaussian"))
        for case in speed_cases.CONVERTED
    ),
]
_CPU = torch.device("cpu")
_SLOW_TO_START = ("torch.compile",)  # a compiler run; its block is that of "torch chunked"


@pytest.mark.parametrize(
    ("table", "case", "provider"),
    [
        pytest.param(table, case, provider, id=f"{table}: {case.name}: {provider.name}")
        for table, case in _CASES
        for provider in peers.TABLES[table]
        if provider.name not in _SLOW_TO_START
        if not case.module or bench_converted_step.takes_part(case, provider)
    ],
)
def test_indices_are_the_nearest_codes(table: str, case: SpeedCase, provider: Provider) -> None:
    reason = provider.refusal(case.n, case.k, _CPU)
    if reason is not None:
        pytest.skip(reason)
    x, codebook = case.make()
    try:
        settings = provider.settings(x, codebook)
        call = provider.build(x, codebook.clone(), **case.arguments, **settings)
    except peers.UnavailableError as error:
        pytest.skip(str(error))
    judge = truth.judge(x, codebook, metric=case.metric)
    assert judge(provider.indices(call())).rows == 0


@pytest.mark.parametrize("table", peers.TABLES)
def test_ours_is_the_first_of_every_table_and_names_are_unique(table: str) -> None:
    names = [provider.name for provider in peers.TABLES[table]]
    assert names[0] == OURS
    assert len(set(names)) == len(names)


def test_the_codes_of_a_residual_case_are_distinct() -> None:
    """A search skips equal codes: with them the share of the peak would be flattered."""
    _, codebooks = cases.residual(600, 64, 16, 4)
    assert [len(codes.unique(dim=0)) for codes in codebooks] == [64] * 4

"""What is timed as a converted step has been converted."""

from __future__ import annotations

import dataclasses

import pytest
import speed_cases
import torch
from torch import Tensor, nn

import vqkernels as vq
from benchmarks.peers import UnavailableError, converted, originals

_NAME = "diffusers VectorQuantizer"


def _make(monkeypatch: pytest.MonkeyPatch, module: nn.Module | Exception) -> None:
    """Has the library give ``module``."""

    def make(codebook: Tensor) -> nn.Module:
        if isinstance(module, Exception):
            raise module
        return module

    original = dataclasses.replace(originals.find(_NAME), make=make)
    monkeypatch.setattr(originals, "find", lambda name: original)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), vq.nn.VectorQuantizer(4, 2)])
def test_a_class_that_convert_does_not_replace_is_not_timed(
    module: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(monkeypatch, module)
    with pytest.raises(RuntimeError, match=f"convert must replace {_NAME}, got no quantizer"):
        converted.after(torch.zeros(8, 2), torch.zeros(4, 2), _NAME)


def test_without_the_library_there_is_nothing_to_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    _make(monkeypatch, ImportError("No module named 'diffusers'"))
    with pytest.raises(UnavailableError, match="not installed: No module named 'diffusers'"):
        converted.after(torch.zeros(8, 2), torch.zeros(4, 2), _NAME)


def test_every_class_has_a_case_on_the_cpu_and_on_a_gpu() -> None:
    names = {original.name for original in originals.ORIGINALS}
    for listed in (speed_cases.CONVERTED, speed_cases.GPU_CONVERTED):
        assert {case.module for case in listed} == names

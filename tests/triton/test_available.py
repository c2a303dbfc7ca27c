"""When Triton is there, and what is said when it is not, or too old."""

from __future__ import annotations

import sys

import pytest
import torch

pytest.importorskip("triton")

from vqkernels.ops import dispatch


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Triton serve CPU tensors; nothing is launched here."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3.6.0", None),
        ("3.10.1+git1", None),
        ("4.0", None),
        ("3.5.1", "backend='triton' must have triton 3.6 or newer, got 3.5.1"),
    ],
)
def test_a_triton_that_cannot_compile_the_search_is_refused(
    version: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triton.__version__", version)
    x = torch.zeros(2, 3)
    assert dispatch.why_not("nearest_code", "triton", x, x) == reason


@pytest.mark.usefixtures("interpreted")
def test_without_triton_its_absence_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    x = torch.zeros(2, 3)
    reason = dispatch.why_not("nearest_code", "triton", x, x)
    assert reason is not None
    assert reason.startswith("backend='triton' must have triton installed, got")

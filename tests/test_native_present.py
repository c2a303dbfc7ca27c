"""A suite that silently ran on the reference alone would prove little."""

from __future__ import annotations

import os

import pytest

import vqkernels as vq
from vqkernels.backends import native


@pytest.mark.skipif(os.environ.get("VQK_NATIVE") == "off", reason="VQK_NATIVE=off")
def test_the_extension_is_built_and_chosen() -> None:
    import torch

    assert native.missing() is None, native.missing()
    x = torch.ones(2, 2)
    assert vq.explain(x, x).chosen["nearest_code"] == "native"


def test_the_self_check_passes(capsys: pytest.CaptureFixture[str]) -> None:
    from vqkernels.__main__ import main

    assert main() == 0
    printed = capsys.readouterr().out
    assert vq.__version__ in printed
    assert "self-check: passed" in printed

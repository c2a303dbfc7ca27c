"""The Triton search under the interpreter: the oracle's bits, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_the_interpreted_kernel_equals_the_oracle_and_refuses_bfloat16() -> None:
    """In its own process: the variable is read when the kernel is decorated."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interpreted.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The interpreter's bfloat16 is silently wrong, so it must be refused.
    assert done.stdout.splitlines() == [
        "x must be float32 or float16 under TRITON_INTERPRET=1, got bfloat16"
    ]

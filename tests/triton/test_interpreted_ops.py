"""The tests of the ops and modules once more, with Triton's kernels interpreted on the CPU.

Each file runs in a process of its own: the variable is read when a kernel is decorated. There the
fixture ``backend`` is "triton" and nothing runs natively; bfloat16, which the interpreter gets
wrong, is left out. What is not selected is larger or searches once more; searches are slow there
and have tests of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

_TESTS = Path(__file__).parents[1]
_SELECTED = {
    "ops/test_code_sums.py": "not (2049 or 1031 or float16-cosine)",
    "ops/test_vq_forward.py": "float32-l2-masked or NCHW-torch.float16 or not (agrees or hot)",
    "ops/test_vq_assigned.py": "NCHW-torch.float32-l2 or permuted-torch.float16 or not found",
    "ops/test_vq_backward.py": "float32 or not budget",
    "ops/test_fsq.py": "not (65536 or instruction or beyond or index or codes or paper-clamp)",
    "ops/test_lookup.py": "",
    "ops/test_residual.py": "float32-own-masked or NCHW-torch.float16-shared or NCHW-own-masked",
    "ops/test_residual_backward.py": "not cancel",
    "ops/test_ema_update.py": "",
    "ops/test_normalize_codes.py": "not photo",
    "ops/test_sample_rows.py": "",
    "ops/test_sample_residuals.py": "",
    "ops/test_state_ops.py": "",
    "native/test_state_bits.py": "not (3000 or masked or most or permuted or BTD)",
    "ops/test_soft_assign.py": "gaussian-1.0 or near or extreme or finite or autocast or NCHW",
    "ops/test_sample_codes.py": "inverts or without or finite",
    "triton/test_soft.py": "",
    "triton/test_pruned.py": "",
    "triton/test_training.py": "EMA-l2-straight or Gradient-cosine-rotation or own-dropout",
}


@pytest.mark.parametrize("file", _SELECTED)
def test_the_tests_of_an_op_pass_with_interpreted_kernels(file: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", _SELECTED[file]]
    done = subprocess.run(
        [*command, str(_TESTS / file)],
        cwd=_TESTS.parent,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.MULTILINE), done.stdout[-400:]

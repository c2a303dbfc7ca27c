"""``import vqkernels`` needs torch alone, and touches no GPU."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
for name in ("triton", "numpy", "sklearn", "skimage", "scipy", "accelerate", "vqtrain"):
    sys.modules[name] = None  # importing it now raises ImportError
import vqkernels as vq, torch
assert not torch.cuda.is_initialized()
x = torch.randn(50, 4)
module = vq.nn.VectorQuantizer(8, 4)
module(x.requires_grad_()).loss.backward()
module.eval()
module.decode(module.encode(x))
assert vq.explain(x, module.codebook).chosen["nearest_code"] in ("native", "reference")
assert not torch.cuda.is_initialized()
"""


def test_a_training_step_needs_torch_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

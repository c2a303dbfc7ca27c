"""What the Triton kernels become on a GPU, told without one: ``python -m benchmarks.aot``."""

from __future__ import annotations

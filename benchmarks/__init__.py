"""Every published number, one command each; docs/benchmarks.md says how they are measured."""

from __future__ import annotations

import sys
from pathlib import Path

# The cases are the tests' own: pytest knows where they are, `python -m benchmarks.x` does not.
_TESTS = str(Path(__file__).resolve().parents[1] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)

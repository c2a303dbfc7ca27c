"""Peers that are installed without their dependencies, imported as far as it goes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def encodec() -> ModuleType:
    """encodec. It imports torchaudio, for its files of sound, which no quantizer needs."""
    if "encodec" not in sys.modules and importlib.util.find_spec("torchaudio") is None:
        # Not left there: other libraries ask whether there is a torchaudio.
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        try:
            importlib.import_module("encodec")
        finally:
            del sys.modules["torchaudio"]
    return importlib.import_module("encodec")


def dac_quantize() -> ModuleType:
    """dac.nn.quantize, without what the packages around it import."""
    if "dac" not in sys.modules:
        spec = importlib.util.find_spec("dac")
        assert spec is not None
        assert spec.origin is not None
        for name in ("dac", "dac.nn"):
            package = ModuleType(name)
            package.__path__ = [str(Path(spec.origin).parents[1] / name.replace(".", "/"))]
            sys.modules[name] = package
    return importlib.import_module("dac.nn.quantize")

"""Other libraries' quantizers with their constructors, calls, returns and state_dict keys.

One module per library, imported by its name: ``from vqkernels.compat.diffusers import
VectorQuantizer`` in place of theirs. ``convert(model)`` replaces those in a model that exists.
"""

from vqkernels.compat._checkpoint import CheckpointError, check_checkpoint
from vqkernels.compat._convert import convert, revert
from vqkernels.compat._report import Conversion, Report

__all__ = ["CheckpointError", "Conversion", "Report", "check_checkpoint", "convert", "revert"]

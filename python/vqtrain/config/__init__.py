"""One typed configuration for a run: what it may say (`sections`) and how it is read (`parse`)."""

from vqtrain.config.options import LEVEL, RESUME, take_options
from vqtrain.config.parse import explain, locate, parse, presets, read, save
from vqtrain.config.sections import (
    CheckpointConfig,
    FitConfig,
    LogConfig,
    PriorConfig,
    RunConfig,
    SampleConfig,
    TokenizerConfig,
)

__all__ = [
    "LEVEL",
    "RESUME",
    "CheckpointConfig",
    "FitConfig",
    "LogConfig",
    "PriorConfig",
    "RunConfig",
    "SampleConfig",
    "TokenizerConfig",
    "explain",
    "locate",
    "parse",
    "presets",
    "read",
    "save",
    "take_options",
]

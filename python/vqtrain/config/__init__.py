"""One typed configuration for a run: what it may say (`sections`) and how it is read (`parse`)."""

from vqtrain.config.parse import locate, parse, presets, read, save
from vqtrain.config.sections import (
    FitConfig,
    PriorConfig,
    RunConfig,
    SampleConfig,
    TokenizerConfig,
)

__all__ = [
    "FitConfig",
    "PriorConfig",
    "RunConfig",
    "SampleConfig",
    "TokenizerConfig",
    "locate",
    "parse",
    "presets",
    "read",
    "save",
]

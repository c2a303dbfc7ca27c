"""The learning rate as a function of the step: nothing to keep, nothing to restore."""

import math

from vqtrain.config import FitConfig


def learning_rate(step: int, config: FitConfig) -> float:
    """Linear warm-up to the peak, then the schedule that the configuration names.

    Args:
        step: counted from 0.
        config: peak, schedule, steps and warm-up.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    factors = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "constant": 1.0,
    }
    return config.learning_rate * factors[config.schedule]

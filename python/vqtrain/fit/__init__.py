"""Training: its loop, its steps and their order, and what a killed one goes on from."""

from vqtrain.fit.collapse import collapse_warnings, usage_scalars
from vqtrain.fit.objective import Fit, Objective, Validation
from vqtrain.fit.order import Order
from vqtrain.fit.state import finished
from vqtrain.fit.trainer import Trainer, clear

__all__ = [
    "Fit",
    "Objective",
    "Order",
    "Trainer",
    "Validation",
    "clear",
    "collapse_warnings",
    "finished",
    "usage_scalars",
]

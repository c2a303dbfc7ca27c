"""Training: the loop (`loop`) and the order in which it goes through a training set (`order`)."""

from vqtrain.fit.loop import Fit, fit
from vqtrain.fit.order import Order

__all__ = ["Fit", "Order", "fit"]

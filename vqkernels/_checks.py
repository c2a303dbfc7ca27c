"""Argument checks that all layers share.

One form of message: "<argument> must <contract>, got <value>". TypeError for kind and dtype,
ValueError for shape, range and device.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
METRICS = ("l2", "cosine")
ESTIMATORS = ("straight_through", "rotation")


def number(name: str, value: Any) -> None:
    """A finite real number, numpy's included; bool is not one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def at_least(name: str, value: Any, low: float) -> None:
    number(name, value)
    if value < low:
        raise ValueError(f"{name} must be at least {low:g}, got {value}")


def above(name: str, value: Any, low: float) -> None:
    number(name, value)
    if value <= low:
        raise ValueError(f"{name} must be above {low:g}, got {value}")


def in_range(name: str, value: Any, low: float, high: float, *, closed_high: bool = True) -> None:
    number(name, value)
    if not (low <= value < high or (closed_high and value == high)):
        bracket = "]" if closed_high else ")"
        raise ValueError(f"{name} must be in [{low:g}, {high:g}{bracket}, got {value}")


def integer_at_least(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")


def one_of(name: str, value: Any, allowed: Collection[str]) -> None:
    if value not in allowed:
        listed = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")


def tensor(name: str, value: Any) -> None:
    """A tensor outside of torch.func: every public function checks its arguments with this."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{name} must not be inside a torch.func transform (grad, vmap, jvp, ...): the ops "
            "of vqkernels have no rules for them, use torch.autograd; got a call inside one"
        )
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def floating(name: str, value: Any) -> None:
    tensor(name, value)
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be float32, float16, bfloat16 or float64, got {value.dtype}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got {value.layout}")


def integers(name: str, value: Any) -> None:
    tensor(name, value)
    if value.dtype not in INTEGERS:
        raise TypeError(f"{name} must have an integer dtype, got {value.dtype}")


def indices(value: Any) -> None:
    """Numbers of codes at positions, of which there is at least one dimension."""
    integers("indices", value)
    if value.ndim < 1:
        raise ValueError("indices must have at least 1 dimension, got shape ()")


def booleans(name: str, value: Any) -> None:
    tensor(name, value)
    if value.dtype != torch.bool:
        raise TypeError(f"{name} must be torch.bool, got {value.dtype}")


def same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(
            f"{name} must be on the device of {other_name} ({other.device}), got {value.device}"
        )


def shaped(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")


def codebook(value: Any, name: str = "codebook") -> None:
    """A (K, D) matrix of codes with K >= 1 and D >= 1."""
    floating(name, value)
    if value.ndim != 2 or value.shape[0] < 1 or value.shape[1] < 1:
        raise ValueError(
            f"{name} must have shape (K, D) with K >= 1 and D >= 1, got {tuple(value.shape)}"
        )


def channel_option(value: Any) -> None:
    """A dimension number whose range no tensor has decided yet."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"channel_dim must be an integer, got {value!r}")


def channel_dim(value: Any, ndim: int) -> int:
    """``value`` as a non-negative dimension number of a tensor with ``ndim`` dimensions."""
    channel_option(value)
    if not -ndim <= value < ndim:
        raise ValueError(f"channel_dim must be in [{-ndim}, {ndim - 1}], got {value}")
    return value % ndim


def vectors(value: Any, dim: int, channel: Any, name: str = "x") -> int:
    """Checks that ``value`` holds vectors of length ``dim`` along ``channel``.

    Returns the channel dimension as a non-negative number.
    """
    floating(name, value)
    if value.ndim < 2:
        raise ValueError(f"{name} must have at least 2 dimensions, got shape {tuple(value.shape)}")
    resolved = channel_dim(channel, value.ndim)
    if value.shape[resolved] != dim:
        hint = "; did you mean channel_dim=-1?" if value.shape[-1] == dim else ""
        raise ValueError(
            f"{name} must have size {dim} in dimension {resolved} (channel_dim={channel}), "
            f"got shape {tuple(value.shape)}{hint}"
        )
    return resolved


def mask(value: Any, x: Tensor, row_shape: tuple[int, ...]) -> None:
    """A boolean mask over positions: True where a vector counts."""
    if value is None:
        return
    booleans("mask", value)
    shaped("mask", value, row_shape)
    same_device("mask", value, "x", x)

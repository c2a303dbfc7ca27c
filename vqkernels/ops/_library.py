"""Registration: one place that knows torch.library.

Every op is a schema, one Python implementation that picks its backend itself, and a fake. The
choice inside the implementation keeps it opaque to the compiler: no guard and no recompile when a
size passes a threshold. Gradients are ``autograd.Function``s outside of the ops, which costs half
of what a registered autograd formula does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("vqkernels", "DEF")


def define(
    schema: str, impl: Callable[..., Any], fake: Callable[..., Any]
) -> torch._ops.OpOverload:
    """Registers an op under ``vqkernels::`` and returns its handle."""
    name = schema.split("(", 1)[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, impl, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vqkernels::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.vqkernels, name).default


def no_result(*arguments: Any) -> None:
    """The fake of every op that only mutates its arguments."""


def in_recompute() -> bool:
    """True while the autograd engine runs: a checkpointed region is being computed again.

    State ops do nothing then. The test has to be made inside the op: in module code the compiler
    would fold it into the graph.
    """
    return torch._C._current_graph_task_id() != -1

"""Names, order and defaults of arguments are those of vector-quantize-pytorch 1.32."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import vector_quantize_pytorch as library

from vqkernels.compat import vector_quantize_pytorch as compat

# None stands for what theirs builds when the module is imported, or keeps in the signature.
_MADE_LATER = {("LFQ", "straight_through_activation"), ("ResidualVQ", "mlp_kwargs")}
_OURS_ALONE = {"bug_compatible", "_learnt"}
_METHODS = (
    *("__init__", "forward", "get_codes_from_indices", "get_output_from_indices"),
    *("indices_to_codes", "codes_to_indices", "indices_to_level_indices", "quantize"),
    *("bits_to_codes", "update_indices", "update_ema_indices", "expire_codes_"),
)
KINDS = [name for name in compat.__all__ if name != "LossBreakdown"]


def arguments(kind: type[Any], method: str) -> list[tuple[str, Any, Any]]:
    """(name, how it is passed, default), but for defaults that are functions or made later."""
    found = []
    for name, argument in inspect.signature(getattr(kind, method)).parameters.items():
        default = argument.default
        if (kind.__name__, name) in _MADE_LATER or inspect.isfunction(default):
            default = "made later"
        found.append((name, argument.kind, default))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_arguments_are_theirs(name: str) -> None:
    ours, theirs = getattr(compat, name), getattr(library, name)
    for method in _METHODS:
        if hasattr(theirs, method):
            found = arguments(ours, method)
            extra = [each for each in found if each[0] in _OURS_ALONE]
            assert all(how is inspect.Parameter.KEYWORD_ONLY for _, how, _ in extra)
            assert [each for each in found if each not in extra] == arguments(theirs, method)

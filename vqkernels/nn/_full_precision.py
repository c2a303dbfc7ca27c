"""State that stays float32 whatever is done to the module around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class FullPrecision(nn.Module):
    """A module whose tensors follow devices but not dtypes.

    ``.half()``, ``.bfloat16()``, ``.to(dtype)`` and ``.type()`` reach a module through ``_apply``:
    there the device is taken from the converted tensor and the value from the old one. A loaded
    file in another dtype is converted on the way in, also with ``assign=True``. Both hold for the
    modules inside of it too.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FullPrecision:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        problems = self._misfits(state_dict, prefix)
        if problems:  # all or nothing: this module keeps every tensor it had
            error_msgs.extend(problems)
            return
        # In place: torch hands the children what stands in this dictionary afterwards.
        tensors = [
            *self.named_parameters(prefix.rstrip("."), remove_duplicate=False),
            *self.named_buffers(prefix.rstrip("."), remove_duplicate=False),
        ]
        for name, tensor in tensors:
            if isinstance(loaded := state_dict.get(name), Tensor):
                state_dict[name] = loaded.to(tensor.dtype)
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        return misfits(self, state_dict, prefix)


def misfits(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> list[str]:
    """Why the tensors under ``prefix`` cannot be loaded; nothing where they can."""
    return [
        f"{prefix}{name} must have shape {tuple(tensor.shape)}, got {tuple(loaded.shape)}"
        for name, tensor in _own_tensors(module).items()
        if isinstance(loaded := state_dict.get(prefix + name), Tensor)
        and loaded.shape != tensor.shape
    ]


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers("", False)),
    }

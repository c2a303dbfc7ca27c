"""State that stays float32 whatever is done to the module around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_KEPT = (torch.float32, torch.int64)


class FullPrecision(nn.Module):
    """A module whose tensors follow devices but not dtypes.

    ``.half()``, ``.bfloat16()``, ``.to(dtype)`` and ``.type()`` reach a module through ``_apply``:
    there the device is taken from the converted tensor and the value from the old one. A loaded
    file in another dtype is converted on the way in, also with ``assign=True``.
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
        own = {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers("", False))}
        problems: list[str] = []
        converted: dict[str, Tensor] = {}
        for name, tensor in own.items():
            loaded = state_dict.get(prefix + name)
            if not isinstance(loaded, Tensor):
                continue
            if loaded.shape != tensor.shape:
                problems.append(
                    f"{prefix}{name} must have shape {tuple(tensor.shape)}, "
                    f"got {tuple(loaded.shape)}"
                )
            converted[prefix + name] = loaded.to(tensor.dtype)
        if problems:  # all or nothing: this module keeps every tensor it had
            error_msgs.extend(problems)
            return
        super()._load_from_state_dict(
            {**state_dict, **converted},
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

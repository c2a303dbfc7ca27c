"""PeerCodebook: an EMA codebook of ours with another library's state_dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from vqkernels.nn.vector_quantizer import VectorQuantizer
from vqkernels.outputs import VQOutput


class PeerCodebook(VectorQuantizer):
    """A ``VectorQuantizer`` whose state has the names, shapes and dtypes of another library.

    Its codebook has moved when a training forward returns, as theirs has; ours alone moves at the
    start of the next one. A checkpointed region around it therefore raises RuntimeError in its
    backward, where theirs would update the averages a second time.

    State that theirs does not have is not written, and is at its first value after a load. The
    attributes of ``their_names`` can be read; they are views of the present values where
    ``_to_theirs`` makes views.

    Attributes:
        their_names: name of ours to name of theirs.
        given_dtype: the dtype that the model was given, which the state, float32, does not take.
    """

    their_names: ClassVar[dict[str, str]] = {}
    given_dtype: torch.dtype = torch.float32

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """As ``VectorQuantizer.forward``; in training the codebook moves before it returns."""
        out = super().forward(x, mask)
        if self.training:
            self.flush()
        return out

    def _begin(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        # Nothing is pending: the codebook has moved when the last training forward returned.
        self._initialise(x, mask, channel)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PeerCodebook:
        super()._apply(fn, recurse)
        self.given_dtype = fn(self.codebook.new_empty(0, dtype=self.given_dtype)).dtype
        return self

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor that we call ``name`` in their shape and dtype."""
        return tensor

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        """What they keep for the tensor that we call ``name``, in our shape."""
        return tensor

    def __getattr__(self, name: str) -> Any:
        for ours, theirs in type(self).their_names.items():
            if theirs == name != ours:
                return self._to_theirs(ours, getattr(self, ours))
        return super().__getattr__(name)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for ours, theirs in self.their_names.items():
            tensor = self._to_theirs(ours, getattr(self, ours))
            destination[prefix + theirs] = tensor if keep_vars else tensor.detach()

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
        given = self._first_values(prefix)
        for ours, theirs in self.their_names.items():
            value = state_dict.get(prefix + theirs)
            if value is None:
                given[prefix + ours] = getattr(self, ours)
                missing_keys.append(prefix + theirs)
            else:
                given[prefix + ours] = self._to_ours(ours, value)
        known = {prefix + theirs for theirs in self.their_names.values()}
        own = [key for key in state_dict if key.startswith(prefix)]
        unexpected_keys.extend(key for key in own if key not in known)
        super()._load_from_state_dict(
            given, prefix, local_metadata, False, missing_keys, unexpected_keys, error_msgs
        )

    def _first_values(self, prefix: str) -> dict[str, Tensor]:
        """The state that only we have, as it is before the first training forward."""
        values = {}
        for name, tensor in self.named_buffers(recurse=False):
            if name not in self.their_names and name != "frozen":
                first = torch.inf if name == "pending_rows" else int(name == "initialised")
                values[prefix + name] = torch.full_like(tensor, first)
        return values

"""Checkpoints that do not fit, each with a code and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from vqkernels.compat._peer import Peer

_WRAPPER = "module."  # what DataParallel and DDP put before the keys of what they wrap


class CheckpointError(RuntimeError):
    """A state_dict that a module cannot take. Nothing of that module has been loaded.

    Attributes:
        code: "missing_keys", "module_prefix" (written by a DataParallel or DDP wrapper),
            "wrong_num_embeddings", "wrong_embedding_dim", "transposed_codebook", or
            "wrong_shape" for any other tensor.
        key: the first key that is concerned.
    """

    def __init__(self, code: str, key: str, message: str) -> None:
        super().__init__(code, key, message)
        self.code = code
        self.key = key

    def __str__(self) -> str:
        return f"{self.args[2]} [{self.code}]"


def check_checkpoint(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Whether the quantizers of ``vqkernels.compat`` in a model can take a state_dict, strictly.

    Called before ``load_state_dict`` it leaves the whole model as it was. That raises the same for
    tensors of another shape, but only when the modules before them have been loaded, and names
    missing keys without a code, unless the quantizer itself is what is loaded.

    Args:
        model: any module.
        state_dict: what is to be loaded into it.

    Raises:
        CheckpointError: the first misfit.
    """
    from vqkernels.compat._peer import Peer

    for name, module in model.named_modules():
        if isinstance(module, Peer):
            prefix = f"{name}." if name else ""
            refuse_missing(module, state_dict, prefix)
            refuse_misfits(module, state_dict, prefix)


def refuse_missing(module: Peer, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Raises CheckpointError if the state under ``prefix`` is not complete."""
    missing = [prefix + name for name in module.state_dict() if prefix + name not in state_dict]
    if missing:
        raise _missing(missing, state_dict, prefix)


def refuse_misfits(module: Peer, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Raises CheckpointError for the first tensor of another shape."""
    for name, tensor in module.state_dict().items():
        loaded = state_dict.get(prefix + name)
        if isinstance(loaded, Tensor) and loaded.shape != tensor.shape:
            raise _misfit(module, prefix + name, tensor, loaded)


def _missing(missing: list[str], state_dict: Mapping[str, Any], prefix: str) -> CheckpointError:
    for key in missing:
        for wrapped in (_WRAPPER + key, f"{prefix}{_WRAPPER}{key.removeprefix(prefix)}"):
            if wrapped in state_dict:
                message = (
                    f"state_dict must have the key {key}, got {wrapped}: a DataParallel or DDP "
                    f"wrapper wrote it; take {_WRAPPER!r} out of the keys, or load into it"
                )
                return CheckpointError("module_prefix", key, message)
    message = f"state_dict must have the keys {', '.join(missing)}, got none of them"
    return CheckpointError("missing_keys", missing[0], message)


def _misfit(module: Peer, key: str, tensor: Tensor, loaded: Tensor) -> CheckpointError:
    wanted, found = tuple(tensor.shape), tuple(loaded.shape)
    message = f"{key} must have shape {wanted}, got {found}"
    if not key.endswith(module.codebook_key) or len(wanted) != len(found):
        return CheckpointError("wrong_shape", key, message)
    codes, width = (axis % len(wanted) for axis in module.codebook_axes)
    if (found[codes], found[width]) == (wanted[width], wanted[codes]):
        hint = "a transposed codebook; load its .mT"
        return CheckpointError("transposed_codebook", key, f"{message}: {hint}")
    if found[codes] != wanted[codes]:
        hint = f"{found[codes]} codes, where the module has {wanted[codes]}"
        return CheckpointError("wrong_num_embeddings", key, f"{message}: {hint}")
    if found[width] != wanted[width]:
        hint = f"codes of {found[width]} channels, where the module has {wanted[width]}"
        return CheckpointError("wrong_embedding_dim", key, f"{message}: {hint}")
    return CheckpointError("wrong_shape", key, message)

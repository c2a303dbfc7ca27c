"""Moves what a module holds into another one of the same names."""

from __future__ import annotations

import itertools

from torch import nn

from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._peer import Peer

# The handles that users keep point at these dictionaries, so the dictionaries themselves move.
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_is_full_backward_hook",
)


class MisfitError(Exception):
    """The two modules do not hold the same; the message says where they differ."""


def check(source: nn.Module, target: nn.Module) -> None:
    """Raises MisfitError unless the two have the same state_dict keys and shapes."""
    held, wanted = (
        {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        for module in (source, target)
    )
    odd = sorted(held.keys() ^ wanted.keys())
    if odd:
        raise MisfitError(f"its state_dict differs from that of its class in {', '.join(odd)}")
    for name, shape in held.items():
        if shape != wanted[name]:
            raise MisfitError(f"{name} has shape {shape}, where its class has {wanted[name]}")


def carry(source: nn.Module, target: nn.Module) -> None:
    """Gives ``target`` the state, the children, the hooks and the mode of ``source``.

    Parameters, buffers and children that both call by one name become the same objects: an
    optimizer goes on with them. Where one of the two is a PeerCodebook the values are copied.
    """
    tensors = list(itertools.chain(source.parameters(), source.buffers()))
    if tensors:
        target.to(tensors[0].device)
    # A PeerCodebook is float32 whatever it is told, so it cannot tell; but it wants to know.
    dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    if dtypes and not _has_peers(source):
        target.to(dtypes[0])
    _carry(source, target)


def _carry(source: nn.Module, target: nn.Module) -> None:
    if isinstance(source, PeerCodebook) or isinstance(target, PeerCodebook):
        target.load_state_dict(source.state_dict())
    else:
        for name in target._parameters.keys() & source._parameters.keys():
            target._parameters[name] = source._parameters[name]
        for name in target._buffers.keys() & source._buffers.keys():
            target._buffers[name] = source._buffers[name]
        for name, child in target._modules.items():
            other = source._modules.get(name)
            if child is None or other is None or child is other:
                continue
            if type(child) is type(other) and not _has_peers(child) and not _has_peers(other):
                target._modules[name] = other
            else:
                _carry(other, child)
    for hooks in _HOOKS:
        target.__dict__[hooks] = source.__dict__[hooks]
    target.training = source.training
    ours = target if hasattr(type(target), "settings") else source
    for name in getattr(type(ours), "settings", ()):
        setattr(target, name, getattr(source, name))


def _has_peers(module: nn.Module) -> bool:
    return any(isinstance(part, (Peer, PeerCodebook)) for part in module.modules())

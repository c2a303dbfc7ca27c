"""Moves what a module holds into another one of the same names."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._peer import Peer, class_path

# The handles that users keep point at these dictionaries, so the dictionaries themselves move.
HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class MisfitError(Exception):
    """The two modules do not hold the same; the message says where they differ."""


def check(source: nn.Module, target: nn.Module) -> None:
    """Raises MisfitError unless the two have state_dict keys, shapes and torch's parts in common.

    A part is a module of torch or of a user: that of another class may do something else.
    """
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
    parts = dict(source.named_modules(remove_duplicate=False))
    for name, part in target.named_modules(remove_duplicate=False):
        other = parts.get(name, part)
        if type(part) is not type(other) and not _is_ours(part) and not _is_ours(other):
            raise MisfitError(
                f"{name} is a {class_path(type(other))}, "
                f"where its class has a {class_path(type(part))}"
            )


def carry(source: nn.Module, target: nn.Module) -> None:
    """Gives ``target`` the state, the children, the hooks and the mode of ``source``.

    Parameters, buffers and children that both call by one name become the same objects: an
    optimizer goes on with them. Where one of the two is a PeerCodebook the values are copied. A
    part that is in several places of ``source`` is in the same ones of ``target``.
    """
    _carry(source, target, {})


def _carry(source: nn.Module, target: nn.Module, done: dict[int, nn.Module]) -> None:
    done[id(source)] = target
    if isinstance(source, PeerCodebook) or isinstance(target, PeerCodebook):
        _to_its_kind(source, target)
        target.load_state_dict(source.state_dict())
    else:
        for name in target._parameters.keys() & source._parameters.keys():
            target._parameters[name] = source._parameters[name]
        for name in target._buffers.keys() & source._buffers.keys():
            target._buffers[name] = source._buffers[name]
        device = _device(source)
        for name in target._buffers.keys() - source._buffers.keys():
            own = target._buffers[name]
            target._buffers[name] = own if own is None else own.to(device)
        for name, child in target._modules.items():
            other = source._modules.get(name)
            if child is None or other is None or child is other:
                continue
            if id(other) in done:
                target._modules[name] = done[id(other)]
            elif type(child) is type(other) and not _has_peers(child) and not _has_peers(other):
                target._modules[name] = other
            else:
                _carry(other, child, done)
    for hooks in (*HOOKS, "_is_full_backward_hook"):
        target.__dict__[hooks] = source.__dict__[hooks]
    loading: Any = source._load_state_dict_pre_hooks.items()
    target._load_state_dict_pre_hooks = OrderedDict(
        # The others know the module that they were given to.
        (key, type(hook)(hook.hook, target) if hook.with_module else hook)
        for key, hook in loading
    )
    target.training = source.training
    ours = target if hasattr(type(target), "settings") else source
    for name in getattr(type(ours), "settings", ()):
        setattr(target, name, getattr(source, name))


def _to_its_kind(source: nn.Module, target: nn.Module) -> None:
    """Gives the state of ``target`` the device and the floating dtype of that of ``source``."""
    tensors = list(itertools.chain(source.parameters(), source.buffers()))
    held = max(tensors, key=lambda tensor: tensor.numel() * tensor.is_floating_point())
    target.to(held.device, source.given_dtype if isinstance(source, PeerCodebook) else held.dtype)


def _device(module: nn.Module) -> torch.device | None:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), None)


def _is_ours(module: nn.Module) -> bool:
    return class_path(type(module)).startswith("vqkernels.")


def _has_peers(module: nn.Module) -> bool:
    return any(isinstance(part, (Peer, PeerCodebook)) for part in module.modules())

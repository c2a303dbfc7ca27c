"""Modules that ops tell what a step has found out.

A module's plain flags decide what a step leaves out, and have to be set from inside an op: an
attribute that traced code sets is refused in a checkpointed region, and would be set whatever the
data.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Protocol

import torch
from torch import Tensor


class Owner(Protocol):
    """What an op may tell the module whose codebook it has changed."""

    def _initialisation_is(self, done: bool) -> None: ...

    def _ranks_are_alike(self) -> None: ...


_owners: weakref.WeakValueDictionary[int, Owner] = weakref.WeakValueDictionary()
_keys = itertools.count()


def register_owner(owner: Owner) -> Tensor:
    """The key under which ops find ``owner``, which is not kept alive.

    A tensor: the compiler guards on the value of an int and would compile every module anew.
    """
    key = next(_keys)
    _owners[key] = owner
    return torch.tensor(key, device="cpu")


def find(key: Tensor) -> Owner | None:
    return _owners.get(int(key))

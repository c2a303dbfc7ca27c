"""Which class of ours stands in for which class of theirs, and what looks like neither."""

from __future__ import annotations

import functools
import importlib
import inspect
import re

from torch import nn

from vqkernels.compat._peer import Peer, class_path

_LIBRARIES = (
    "audiocraft",
    "dac",
    "diffusers",
    "encodec",
    "mishalaskin",
    "rosinality",
    "taming",
    "transformers",
    "vector_quantize_pytorch",
    "zalando",
)
_NAMED_LIKE_ONE = re.compile(r"quantiz|codebook|vq|fsq|lfq|bsq", re.IGNORECASE)
_WITHOUT_CODEBOOK = re.compile(r"fsq|lfq|bsq", re.IGNORECASE)


@functools.cache
def _peers() -> tuple[type[Peer], ...]:
    """All of them. Imported when they are first asked for: ``import vqkernels`` needs none."""
    modules = [importlib.import_module(f"vqkernels.compat.{name}") for name in _LIBRARIES]
    found = [value for module in modules for value in vars(module).values()]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Peer)]
    return tuple(dict.fromkeys(kind for kind in kinds if vars(kind).get("replaces")))


def exact(kind: type[nn.Module]) -> type[Peer] | None:
    """Ours for a class of a library that is known by its path."""
    path = class_path(kind)
    return next((peer for peer in _peers() if path in peer.replaces), None)


def base(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The class of a known library that ``kind`` is derived from."""
    return next((parent for parent in kind.__mro__[1:] if exact(parent) is not None), None)


def namesakes(kind: type[nn.Module]) -> list[type[Peer]]:
    """Ours for the classes of that name that projects copy."""
    return [
        peer
        for peer in _peers()
        if peer.copied and any(path.endswith(f".{kind.__name__}") for path in peer.replaces)
    ]


def additions(copy: nn.Module, ours: Peer) -> list[str]:
    """What a copied class has beyond the class that it has the name of: by name, in order.

    Attributes, parts, public methods and arguments of ``forward``; a trial of one step sees no
    counter, and no method but ``forward``.
    """
    kinds = [kind for kind in type(copy).__mro__ if kind not in nn.Module.__mro__]
    methods = [name for kind in kinds for name in vars(kind) if not name.startswith("_")]
    own = [name for name in (*vars(copy), *copy._modules, *methods) if not hasattr(ours, name)]
    theirs, known = (list(inspect.signature(one.forward).parameters) for one in (copy, ours))
    return sorted({*own, *theirs[len(known) :]})


def _is_known(kind: type[nn.Module]) -> bool:
    ours = class_path(kind).startswith("vqkernels.")
    return ours or exact(kind) is not None or base(kind) is not None or bool(namesakes(kind))


def looks_like_one(module: nn.Module) -> bool:
    """Named like a quantizer, with something like a codebook of its own, and unknown throughout.

    torch's own modules that quantize are about the precision of weights.
    """
    kind = type(module)
    if class_path(kind).startswith("torch.") or not _NAMED_LIKE_ONE.search(kind.__name__):
        return False
    if any(_is_known(type(part)) for part in module.modules()):
        return False
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return (
        bool(_WITHOUT_CODEBOOK.fullmatch(kind.__name__))
        or any(tensor.ndim > 1 for tensor in own)
        or any(isinstance(child, nn.Embedding) for child in module.children())
    )

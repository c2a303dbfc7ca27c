"""convert and revert: the quantizers of a model that exists, replaced in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import nn

from vqkernels import _checks
from vqkernels.compat import _recognise
from vqkernels.compat._carry import MisfitError, carry, check
from vqkernels.compat._peer import Origin, Peer, class_path
from vqkernels.compat._probe import difference
from vqkernels.compat._report import Conversion, Report


class _LeftError(Exception):
    """Why a module stays as it is."""


def convert(model: nn.Module, *, dry_run: bool = False) -> Report:
    """Replaces the quantizers of other libraries in a model by ours, in place.

    Known are the classes of ``vqkernels.compat``, by their import path; of those that projects
    copy, also a class of the same name whose attributes and state_dict are the same and which, in
    a copy of both, gives the same outputs, gradients and state in a training step and the same
    outputs in evaluation. No library is imported. Parameters and buffers stay the same objects
    wherever they lie under the same names, so that an optimizer made before goes on; hooks,
    training mode, ``requires_grad`` and devices are kept. Left and reported are a quantizer with
    an option that we do not serve or with a part that was changed, a copy with anything beside
    what its class has, a subclass, a compiled wrapper, and what looks like a quantizer and is
    unknown. torch's generators are where they were.

    Args:
        model: any module. What it is itself cannot be replaced in place, only what is in it.
        dry_run: reports what would be done and changes nothing.

    Returns:
        Report: for every quantizer its path, old and new class, or why it was left.

    Raises:
        TypeError: an argument breaks its contract.
    """
    return _replace_all(model, _replacement, dry_run)


def revert(model: nn.Module, *, dry_run: bool = False) -> Report:
    """Gives the modules that ``convert`` has replaced their original classes back, in place.

    They get the weights, statistics, hooks, mode and settings that ours have now. Their library
    has to be there. A module that was made as ours has no other class and is left.

    Args, Returns, Raises: as ``convert``.
    """
    return _replace_all(model, _original, dry_run)


def _replace_all(
    model: nn.Module, replace: Callable[[nn.Module], nn.Module | None], dry_run: bool
) -> Report:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    _checks.boolean("dry_run", dry_run)
    places = _places(model)
    decided: list[tuple[nn.Module, Conversion]] = []
    taken: dict[int, nn.Module] = {}  # by the identity of what it takes the place of
    inside: tuple[str, ...] = ()  # prefixes of what has been decided together with its owner
    for path, module in model.named_modules():
        if path.startswith(inside):
            continue
        try:
            with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
                new = replace(module)
                if new is not None and not path:
                    raise _LeftError(
                        "it is the model itself, which has no place in another module; make a "
                        f"{class_path(type(new))} and load its state_dict"
                    )
                if new is not None and any(_is_compiled(owner) for owner, _ in places[id(module)]):
                    raise _LeftError(
                        "torch.compile holds it by itself; convert before, and compile then"
                    )
        except _LeftError as error:
            old = class_path(type(module))
            decided.append((module, Conversion(path, old, reason=" ".join(str(error).split()))))
        else:
            if new is None:
                continue
            entry = Conversion(path, class_path(type(module)), new=class_path(type(new)))
            decided.append((module, entry))
            taken.update(_counterparts(module, new))
        inside += (f"{path}." if path else "",)
    # Only now, when nothing can raise any more.
    for old_id, new in () if dry_run else taken.items():
        for owner, name in places[old_id]:
            if id(owner) not in taken:
                owner._modules[name] = new
    # What was met first by itself and then as a part has gone along with the whole.
    return Report(
        tuple(
            entry for module, entry in decided if entry.new is not None or id(module) not in taken
        )
    )


def _counterparts(old: nn.Module, new: nn.Module) -> dict[int, nn.Module]:
    """By the identity of ``old`` and of its parts: what has their places in ``new``.

    The model may hold a part in a place of its own too.
    """
    parts = dict(old.named_modules(remove_duplicate=False))
    return {
        id(parts[name]): part
        for name, part in new.named_modules(remove_duplicate=False)
        if name in parts and parts[name] is not part
    }


def _is_compiled(owner: nn.Module) -> bool:
    """Whether it is torch.compile's wrapper, which calls what it was given, whatever it holds."""
    return class_path(type(owner)) == "torch._dynamo.eval_frame.OptimizedModule"


def _places(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """By the identity of a module: everything that owns it, and under which name."""
    places = defaultdict(list)
    for owner in model.modules():
        for name, child in owner._modules.items():
            places[id(child)].append((owner, name))
    return places


def _replacement(theirs: nn.Module) -> nn.Module | None:
    """Ours for a module, with its state; None for what is no quantizer."""
    kind = type(theirs)
    if class_path(kind).startswith("vqkernels."):
        return None
    known = _recognise.exact(kind)
    if known is not None and not known.copied:  # a copy may bear the path of what it has changed
        return _made(known, theirs)
    reasons = []
    for peer in _recognise.namesakes(kind):
        try:
            ours = _made(peer, theirs)
            more = _recognise.additions(theirs, ours)
            if more:
                raise _LeftError(f"it has {', '.join(more)}, which that class has not")
        except _LeftError as error:
            reasons.append(f"as {class_path(peer)}: {error}")
            continue
        differs = difference(theirs, ours)
        if differs is None:
            return ours
        reasons.append(f"as {class_path(peer)}: {differs}")
    if reasons:
        raise _LeftError(f"it has the name of a known class, but {'; '.join(reasons)}")
    base = _recognise.base(kind)
    if base is not None:
        raise _LeftError(f"a subclass of {class_path(base)} may do something else")
    if _recognise.looks_like_one(theirs):
        raise _LeftError("it looks like a quantizer, and its class is not known")
    return None


def _made(peer: type[Peer], theirs: nn.Module) -> Peer:
    for name, part in theirs.named_modules():
        if "forward" in vars(part):
            whose = f"the forward of its {name}" if name else "its forward"
            raise _LeftError(f"{whose} has been replaced on the module itself")
    try:
        arguments = peer.arguments_of(theirs)
        ours = peer(**arguments)
        check(theirs, ours)
        _check_known(theirs, ours)
        carry(theirs, ours)
    except AttributeError as error:
        raise _LeftError(f"it lacks an attribute of its class: {error}") from error
    except (RuntimeError, TypeError, ValueError, OSError, MisfitError) as error:
        raise _LeftError(str(error)) from error
    ours._origin = Origin(class_path(type(theirs)), arguments, type(theirs))
    return ours


def _check_known(theirs: nn.Module, ours: nn.Module) -> None:
    """Raises MisfitError if a part that ours has a class for is of another one, as a subclass."""
    parts = dict(theirs.named_modules(remove_duplicate=False))
    for name, part in ours.named_modules(remove_duplicate=False):
        kind = type(parts.get(name, theirs))
        known = name in parts and isinstance(part, Peer) and not part.copied
        if name and known and class_path(kind) not in part.replaces:
            raise MisfitError(
                f"{name} is a {class_path(kind)}, where its class has a {part.replaces[0]}"
            )


def _original(ours: nn.Module) -> nn.Module | None:
    if not isinstance(ours, Peer):
        return None
    if ours._origin is None:
        raise _LeftError("it was made as this class and has no other")
    try:
        theirs = ours._origin.make()
        check(ours, theirs)
    except (ImportError, AttributeError) as error:
        raise _LeftError(f"its library is needed: {error}") from error
    except MisfitError as error:
        raise _LeftError(str(error)) from error
    carry(ours, theirs)
    return theirs

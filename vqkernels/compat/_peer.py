"""Peer: a module that stands in for another library's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from torch import Tensor, nn

from vqkernels.compat import _checkpoint


def class_path(kind: type[Any]) -> str:
    """Where a class is imported from."""
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True)
class Origin:
    """What a converted module was: the class, and the arguments that make one like it.

    The class itself is not pickled, so that a converted model loads without its library.
    """

    path: str
    arguments: dict[str, Any]
    kind: type[nn.Module] | None = field(default=None, compare=False)

    def make(self) -> nn.Module:
        """Raises ImportError or AttributeError where the class is not to be found."""
        kind = self.kind or _find(self.path)
        made = kind(**self.arguments)
        assert isinstance(made, nn.Module)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kind": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self


def _find(path: str) -> Any:
    """The class at a path, whose module is the longest part of it that can be imported."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):
                continue  # what follows in the path are classes
            raise
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise ImportError(f"the library of {path} must be installed to make one, got none")


class Peer(nn.Module):
    """Base of the classes with another library's constructor, calls, returns and state_dict.

    Parameters and buffers lie under the names that they have in theirs, so that a state_dict, an
    optimizer and a line of code that reads an attribute do not see which of the two it is.

    Attributes:
        replaces: import paths of the classes that it stands in for.
        copied: projects copy the class instead of importing it. ``convert`` then also takes a
            class of the same name from anywhere, if it proves to do the same.
        codebook_key: last part of the state_dict keys that hold a codebook.
        settings: plain attributes that users change; ``convert`` and ``revert`` carry them along.
        codebook_axes: dimensions of that tensor that count the codes and their width.
    """

    replaces: ClassVar[tuple[str, ...]] = ()
    copied: ClassVar[bool] = False
    codebook_key: ClassVar[str] = "embedding.weight"
    settings: ClassVar[tuple[str, ...]] = ()
    codebook_axes: ClassVar[tuple[int, int]] = (-2, -1)

    _origin: Origin | None = None

    @classmethod
    def arguments_of(cls, theirs: nn.Module) -> dict[str, Any]:
        """The arguments that ``theirs`` was made with, read off its attributes.

        Raises AttributeError where it lacks one: then it is no module of that class.
        """
        raise NotImplementedError

    def probe_input(self) -> Tensor:
        """A small input of ``forward``, the nearest codes of whose vectors are beyond doubt."""
        raise NotImplementedError

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        if strict:
            _checkpoint.refuse_missing(self, state_dict, "")
        return super().load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Not what is missing: torch does not say here whether it may be.
        _checkpoint.refuse_misfits(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def unserved(owner: nn.Module, **options: tuple[Any, Any]) -> None:
    """Refuses options by name: each is given as (value, the one value that is served)."""
    for name, (value, served) in options.items():
        if value is not served and value != served:
            refuse(owner, f"{name}={value!r}")


def refuse(owner: nn.Module, what: str) -> NoReturn:
    raise NotImplementedError(f"{type(owner).__name__}: {what} is not served by vqkernels")

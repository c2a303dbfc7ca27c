"""The fields of a configuration: their names, what they mean, and the one that was meant.

A configuration is a tree of dataclasses. A field's dotted name, such as `prior.pixelcnn.width`, is
its option on the command line and its place in YAML. What it means stands in its class's
docstring, under `Args:`, and nowhere else: `--help` and `vqk init` read it there.
"""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Any, get_args, get_type_hints


def fields(section: type, prefix: str = "") -> dict[str, str]:
    """Dotted names of all fields, in order, with what they mean.

    Args:
        section: dataclass at the root of the tree.
        prefix: stands before every name.
    """
    kinds, meanings = get_type_hints(section), explanations(section)
    found = {}
    for field in dataclasses.fields(section):
        name = prefix + field.name
        found[name] = meanings[field.name]
        inner = section_of(kinds[field.name])
        if inner is not None:
            found.update(fields(inner, f"{name}."))
    return found


def explanations(section: type) -> dict[str, str]:
    """What each field means: the `Args:` of the class's docstring and of its bases'."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if dataclasses.is_dataclass(base):
            found.update(_arguments(inspect.cleandoc(base.__doc__ or "")))
    return found


def section_of(kind: Any) -> type | None:
    """The dataclass that a field of type `kind` holds, also an optional one; None for a leaf."""
    alternatives = [k for k in get_args(kind) if k is not NoneType] or [kind]
    first = alternatives[0]
    return first if isinstance(first, type) and dataclasses.is_dataclass(first) else None


def refuse_unknown(given: Iterable[str], section: type, before: str = "") -> None:
    """Raises ValueError for the first dotted name that is no field, and names what was meant.

    Args:
        given: dotted names.
        section: dataclass at the root of the tree.
        before: what stands before a name where it was given, such as `--`.
    """
    known = fields(section)
    for name in given:
        if name not in known:
            meant = " or ".join(before + n for n in nearest(name, list(known)))
            hint = f", did you mean {meant}?" if meant else ""
            raise ValueError(f"{before}{name} is not a field{hint}")


def nearest(name: str, known: list[str]) -> list[str]:
    """The known names that `name` may stand for; empty if none is like it.

    They end like it (`prior.width` is `prior.gpt.width` or another model's), or else the one that
    is spelt most like it, or else those whose last part is.
    """
    section, leaf = name.split(".")[0] if "." in name else "", name.split(".")[-1]

    def ending(last: str) -> list[str]:
        return [k for k in known if k.startswith(section) and k.split(".")[-1] == last]

    close = difflib.get_close_matches(leaf, [k.split(".")[-1] for k in known], n=1)
    return ending(leaf) or difflib.get_close_matches(name, known, n=1) or ending(*close or [""])


def dotted(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the keys of nested dictionaries."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")


def _arguments(docstring: str) -> dict[str, str]:
    """Name to text of a Google-style `Args:` section; an entry's further lines are indented."""
    _, _, rest = docstring.partition("Args:\n")
    body = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", body, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}

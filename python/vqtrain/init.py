"""A configuration to start from: a preset with every field written out and explained.

    vqk init digits > mine.yaml
    vqk run mine.yaml

The file holds the preset's values, the fields that it leaves at their defaults, the preset's own
comments and what each field means. Of several models to choose from it has the chosen one; write
another's fields by hand after `--help`, or start from a preset that uses it.
"""

import argparse
import dataclasses
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import yaml

from vqtrain.config import RunConfig, locate, read
from vqtrain.config.fields import explanations
from vqtrain.files import write_atomic

WIDTH = 99


class Comments(NamedTuple):
    """What a preset's author wrote at a key: whole lines above it, and the end of its line."""

    above: list[str]
    behind: str


def write_commented(config: RunConfig, comments: dict[str, Comments], header: list[str]) -> str:
    """YAML of a configuration, every field explained; loading it gives the configuration back.

    Args:
        config: the values.
        comments: remarks on single fields, by dotted name.
        header: comment lines at the top.
    """
    return "\n".join([*header, "", *_section(config, comments, "")]) + "\n"


def read_comments(text: str) -> tuple[list[str], dict[str, Comments]]:
    """The comments of a YAML file in block style.

    Returns:
        The header, which is the comment lines before the first blank line, and the comments of
        each key by dotted name.
    """
    lines = text.splitlines()
    header = []
    if lines and lines[0].startswith("#") and "" in lines:
        header = lines[: lines.index("")]
    found = {}
    for name, number, column in _keys(yaml.compose(text)):
        first = number
        while first > len(header) and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        above = [line.strip() for line in lines[first:number]]
        behind = re.search(r"\s#.*", lines[number][column:])
        found[name] = Comments(above, behind.group().strip() if behind else "")
    return header, found


def _keys(node: yaml.MappingNode | None, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Dotted name of every key, its line, and the column at which a comment may follow."""
    for key, value in node.value if node is not None else ():
        name, here = prefix + key.value, key.end_mark
        inline = value.end_mark.line == here.line
        yield name, here.line, value.end_mark.column if inline else here.column
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, f"{name}.")


def _section(section: Any, comments: dict[str, Comments], prefix: str) -> Iterator[str]:
    """The lines of one section, indented by its depth."""
    indent = "  " * prefix.count(".")
    kinds, explained = get_type_hints(type(section)), explanations(type(section))
    for field in dataclasses.fields(section):
        name, kind = field.name, kinds[field.name]
        value = getattr(section, name)
        if _is_idle(section, name, value):
            continue
        about = comments.get(prefix + name, Comments([], ""))
        behind = f"  {about.behind}" if about.behind else ""
        if dataclasses.is_dataclass(value) and not prefix:
            yield ""
        for line in textwrap.wrap(_explanation(explained[name], kind), WIDTH - len(indent) - 2):
            yield f"{indent}# {line}"
        yield from (indent + line for line in about.above)
        if dataclasses.is_dataclass(value):
            yield f"{indent}{name}:{behind}"
            yield from _section(value, comments, f"{prefix}{name}.")
        else:
            yield f"{indent}{name}: {_scalar(value)}{behind}"


def _is_idle(section: Any, name: str, value: Any) -> bool:
    """Whether a field describes a model that `kind` does not choose, and nobody has set it."""
    is_section, kind = dataclasses.is_dataclass(value), getattr(section, "kind", None)
    return is_section and kind not in (None, name) and value == type(value)()


def _explanation(text: str, kind: Any) -> str:
    """The documentation of a field and, where they are few, its possible values."""
    if get_origin(kind) is Literal:
        return f"{text} One of {', '.join(map(str, get_args(kind)))}."
    return text


def _scalar(value: Any) -> str:
    """A leaf as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def main(argv: list[str] | None = None) -> None:
    """Writes the file from the command line."""
    parser = argparse.ArgumentParser(
        prog="vqk init", description="Write a preset with every field explained."
    )
    parser.add_argument("source", help="preset name, YAML file or run folder")
    parser.add_argument("--out", type=Path, help="file to write; default: standard output")
    arguments = parser.parse_args(argv)
    path = locate(arguments.source).config
    header, comments = read_comments(path.read_text())
    text = write_commented(read(path), comments, header)
    if arguments.out is None:
        sys.stdout.write(text)
        return
    if arguments.out.exists():
        raise ValueError(f"--out must not exist yet, got {arguments.out}")
    write_atomic(arguments.out, text.encode())


if __name__ == "__main__":
    main()

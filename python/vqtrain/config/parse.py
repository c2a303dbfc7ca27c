"""Reads a run's configuration: a YAML preset, overridden on the command line.

Every stage accepts the same arguments: a SOURCE (the name of a preset, a YAML file, or the folder
of an earlier run), `--out RUN`, and any field as `--section.field value`. Unknown keys are
refused with the name of the field that was meant.
"""

import dataclasses
import difflib
import glob
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentParser

from vqtrain.config.fields import dotted, fields, refuse_unknown
from vqtrain.config.sections import RunConfig
from vqtrain.files import write_atomic


class Source(NamedTuple):
    """What SOURCE means.

    Attributes:
        config: YAML file.
        out: run folder that goes with it.
    """

    config: Path
    out: Path


def parse(argv: list[str], command: str) -> tuple[RunConfig, Path]:
    """Reads SOURCE, `--out` and overrides; on help or a usage error exits as argparse does.

    Args:
        argv: arguments after the command.
        command: words of the command, for the help text.

    Returns:
        The configuration and the run folder.
    """
    name = _source(argv)
    parser = _parser(command)
    out = Path()
    try:
        refuse_unknown(_options(argv), RunConfig, before="--")
        if name is not None:
            path, out = locate(name)
            _check_keys(path)
            parser.default_config_files = [glob.escape(str(path))]
    except ValueError as error:
        parser.error(str(error))
    values = parser.instantiate(parser.parse_args(argv))
    config = RunConfig(**{f.name: values[f.name] for f in dataclasses.fields(RunConfig)})
    return config, Path(values.out) if values.out else out


def read(path: Path) -> RunConfig:
    """Reads a YAML file, without a command line; exits on an unknown key as `parse` does."""
    return parse([str(path)], "run")[0]


def save(config: RunConfig, run: Path) -> None:
    """Writes every resolved value to `config.yaml` in the run folder."""
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    write_atomic(run / "config.yaml", text.encode())


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("vqtrain") / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def locate(source: str) -> Source:
    """Finds what SOURCE names: a preset, a run folder or a YAML file.

    Raises:
        ValueError: if it is none of them.
    """
    if source in presets():
        preset = resources.files("vqtrain") / "presets" / f"{source}.yaml"
        return Source(Path(str(preset)), Path("runs", source))
    path = Path(source)
    if (path / "config.yaml").is_file():
        return Source(path / "config.yaml", path)
    if path.is_file():
        return Source(path, Path("runs", path.stem))
    meant = difflib.get_close_matches(source, presets(), n=1)
    hint = f": did you mean {meant[0]!r}?" if meant else ""
    raise ValueError(
        f"source must be a preset ({', '.join(presets())}), a YAML file or a run folder, "
        f"got {source!r}{hint}"
    )


def explain(parser: ArgumentParser, meanings: dict[str, str]) -> None:
    """Gives the options of a parser the documentation of their fields, and its groups names."""
    for action in parser._actions:
        action.help = meanings.get(action.dest, action.help)
    for name, group in (parser.groups or {}).items():
        group.title = name if name in meanings else "fields"


def _parser(command: str) -> ArgumentParser:
    """One option for each field, with the field's own documentation as its help."""
    parser = ArgumentParser(
        prog=f"vqk {command}", usage="%(prog)s SOURCE [--out RUN] [--section.field VALUE ...]"
    )
    parser.add_argument("source", help="preset name, YAML file or run folder")
    parser.add_argument("--out", help="run folder; default runs/NAME, or SOURCE if it is a folder")
    parser.add_class_arguments(RunConfig, None)
    explain(parser, fields(RunConfig))
    return parser


def _source(argv: list[str]) -> str | None:
    """The first word that is neither an option nor the value of one; None if there is none."""
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            return word
        if "=" not in word and word not in ("-h", "--help"):
            next(words, None)
    return None


def _options(argv: list[str]) -> list[str]:
    """Names of the fields among the arguments, as they were typed, without `--`."""
    typed = [word[2:].partition("=")[0] for word in argv if word.startswith("--")]
    return [name for name in typed if name not in ("out", "help")]


def _check_keys(path: Path) -> None:
    """Refuses a file with a key that is no field; what the values may be, the parser knows."""
    try:
        tree: Any = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} must be YAML, got: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must map names of sections to their fields, got {tree!r}")
    try:
        refuse_unknown(dotted(tree), RunConfig)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error

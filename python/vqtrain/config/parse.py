"""Reads a run's configuration: a YAML preset, overridden on the command line.

Every stage accepts the same arguments: a SOURCE (the name of a preset, a YAML file, or the folder
of an earlier run), `--out RUN`, and any field as `--section.field value`. Unknown keys are
refused.
"""

import argparse
import dataclasses
import glob
from importlib import resources
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from vqtrain.config.sections import RunConfig
from vqtrain.files import write_atomic


def parse(argv: list[str], command: str) -> tuple[RunConfig, Path]:
    """Reads SOURCE, `--out` and overrides; on help or a usage error exits as argparse does.

    Args:
        argv: arguments after the command.
        command: words of the command, for the help text.

    Returns:
        The configuration and the run folder.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("source", nargs="?")
    source = first.parse_known_args(argv)[0].source
    parser = ArgumentParser(
        prog=f"vqk {command}", usage="%(prog)s SOURCE [--out RUN] [--section.field VALUE ...]"
    )
    parser.add_argument("source", help="preset name, YAML file or run folder")
    parser.add_argument("--out", help="run folder; default runs/NAME, or SOURCE if it is a folder")
    parser.add_class_arguments(RunConfig, None)
    if source is not None:
        try:
            path, default_out = _locate(source)
        except ValueError as error:
            parser.error(str(error))
        parser.default_config_files = [glob.escape(str(path))]
    values = parser.instantiate(parser.parse_args(argv))
    fields = {f.name: getattr(values, f.name) for f in dataclasses.fields(RunConfig)}
    return RunConfig(**fields), Path(values.out) if values.out else default_out


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


def _locate(source: str) -> tuple[Path, Path]:
    """The YAML file that SOURCE means, and the run folder that goes with it."""
    if source in presets():
        return Path(str(resources.files("vqtrain") / "presets" / f"{source}.yaml")), Path(
            "runs", source
        )
    path = Path(source)
    if (path / "config.yaml").is_file():
        return path / "config.yaml", path
    if path.is_file():
        return path, Path("runs", path.stem)
    raise ValueError(
        f"source must be a preset ({', '.join(presets())}), a YAML file or a run folder, "
        f"got {source!r}"
    )

"""Options that belong to a stage and not to the configuration, such as `--resume`."""

import argparse
from typing import NamedTuple


class Option(NamedTuple):
    """One option, `--name VALUE`."""

    name: str
    default: str
    help: str


RESUME = Option(
    "resume",
    "auto",
    "auto: go on from the last checkpoint, if there is one; never: train anew; "
    "PATH: go on from that checkpoint, such as RUN/tokenizer/step-000500",
)
LEVEL = Option("level", "all", "train the prior of one level of codes, 0 being the top; or all")


def take_options(argv: list[str], *options: Option) -> tuple[dict[str, str], list[str]]:
    """Takes a stage's own options out of its arguments.

    Args:
        argv: arguments after the command; with `-h` or `--help`, the options are explained.
        options: which.

    Returns:
        Their values by name, and the other arguments, for `vqtrain.config.parse`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("options of this command")
    for option in options:
        group.add_argument(f"--{option.name}", default=option.default, help=option.help)
    if "-h" in argv or "--help" in argv:
        print(parser.format_help().partition("\n\n")[2])
    values, rest = parser.parse_known_args(argv)
    return vars(values), rest

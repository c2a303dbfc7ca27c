"""The command `vqk`: words that name a stage, handed on to that stage's `main`.

vqk run digits
vqk train tokenizer digits --out runs/try --tokenizer.steps 200
"""

import importlib
import sys

# Command words to the module whose main(argv) does it, imported only when it is asked for.
COMMANDS = {
    "init": ("vqtrain.init", "write a preset with every field explained, to edit"),
    "data": ("vqtrain.preview", "data list, data preview NAME: which data there is"),
    "run": ("vqtrain.run", "all stages in order"),
    "train tokenizer": ("vqtrain.train_tokenizer", "train a VQ-VAE on images"),
    "extract": ("vqtrain.extract", "turn images into codes"),
    "train prior": ("vqtrain.train_prior", "train a gated PixelCNN on codes"),
    "sample": ("vqtrain.sample", "draw codes from the prior and decode them"),
    "eval": ("vqtrain.evaluate", "held-out bits, baselines, sample scores: metrics.json"),
    "report": ("vqtrain.report", "one self-contained report.html"),
    "export": ("vqtrain.export", "export RUN --to DIR: tokenizer and priors, to hand on"),
}
USAGE = "\n".join(
    [
        "usage: vqk COMMAND SOURCE [--out RUN] [--section.field VALUE ...]",
        "",
        *(f"  {words:<16} {help_text}" for words, (_, help_text) in COMMANDS.items()),
        "",
        "SOURCE is a preset (digits, shapes-vqvae2, tones-1d, ...), a YAML file or a run folder.",
        "`vqk COMMAND --help` lists every field, `vqk init PRESET` writes them to a file.",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0, or 1 after a contract was broken, a file is missing or the disk is full (the text goes
        to stderr). A usage error exits with 2, as argparse does.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    for length in (2, 1):
        words = " ".join(argv[:length])
        if words in COMMANDS:
            module = importlib.import_module(COMMANDS[words][0])
            try:
                module.main(argv[length:])
            except (ValueError, OSError, ModuleNotFoundError) as error:
                print(f"vqk {words}: {error}", file=sys.stderr)
                return 1
            return 0
    print(
        f"command must be one of {', '.join(COMMANDS)}, got {argv[0]!r}\n\n{USAGE}",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())

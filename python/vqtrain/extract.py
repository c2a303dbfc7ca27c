"""Stage 2: turn every image into its grid of codes.

    vqk extract runs/digits

Reads RUN/tokenizer. Writes the code store RUN/codes (see `vqtrain.codes`).
"""

import sys
from pathlib import Path

import torch

from vqtrain import codes
from vqtrain.codes import CodeSet, CodeStore
from vqtrain.config import RunConfig, parse
from vqtrain.metrics.ledger import code_usage
from vqtrain.runtime import stage, start
from vqtrain.train_tokenizer import load_dataset, load_tokenizer

def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    extract(*parse(sys.argv[1:] if argv is None else argv, "extract"))


if __name__ == "__main__":
    main()

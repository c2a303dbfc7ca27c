"""Runs several `vqk` commands one after the other, in the process of one rank."""

import json
import sys

from vqtrain.cli import main

if __name__ == "__main__":
    sys.exit(max(main(command) for command in json.loads(sys.argv[1])))

"""`python -m vqtrain` is `vqk`."""

import sys

from vqtrain.cli import main

sys.exit(main())

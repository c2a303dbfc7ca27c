"""Runs the checks of the named worker scripts; prints the name of every one that has passed."""

from __future__ import annotations

import importlib
import sys

import torch.distributed as dist

for script in sys.argv[1:]:
    for check in importlib.import_module(script).CHECKS:
        dist.barrier()  # started by ranks.py
        check()
        sys.stdout.write(f"passed {script}.{check.__name__}\n")
        sys.stdout.flush()
dist.destroy_process_group()

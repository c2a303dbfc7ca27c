"""A finished run to hand on: a folder of tokenizer, priors and `pipeline.json`, no training state.

    vqk export runs/digits --to digits-model

`vqtrain.pipeline.GenerativePipeline.from_pretrained` loads it, and uploaded to a hub as it is, it
can be loaded by its name there. README.md in it says how; `config.yaml` says how it was trained.
"""

import argparse
import shutil
import sys
from pathlib import Path
from string import Template

from vqtrain.files import write_atomic
from vqtrain.pipeline import GenerativePipeline

CARD = Template("""# $name

A tokenizer and $priors of its codes, trained with vqkernels: `config.yaml` says how.

```python
import torch
from vqtrain.pipeline import GenerativePipeline

pipeline = GenerativePipeline.from_pretrained("$folder")
labels = torch.arange($classes)  # $class_names
samples = pipeline.sample(labels, torch.Generator().manual_seed(0))
samples.means  # ($classes, $channels, $size), levels 0 to $highest
```
""")


def export(run: Path, to: Path) -> None:
    """Writes the pipeline of a finished run.

    Args:
        run: run folder.
        to: a new or empty folder.

    Raises:
        FileNotFoundError: if the run has not been trained.
        ValueError: if `to` has something in it, or the run's models do not belong together.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"--to must be a new or empty folder, got {to}")
    if not (run / "config.yaml").is_file():  # or its name would be looked for on the hub
        raise FileNotFoundError(f"{run / 'config.yaml'} is missing: run must be a run folder")
    pipeline = GenerativePipeline.from_pretrained(run)
    pipeline.save_pretrained(to)
    shutil.copyfile(run / "config.yaml", to / "config.yaml")
    signal, levels = pipeline.tokenizer.signal, len(pipeline.priors)
    card = CARD.substitute(
        name=to.name,
        folder=to.name,
        priors="a prior" if levels == 1 else f"{levels} priors, one for each level",
        classes=len(pipeline.class_names),
        class_names=", ".join(pipeline.class_names),
        channels=signal.channels,
        size=", ".join(map(str, signal.size)),
        highest=signal.levels - 1,
    )
    write_atomic(to / "README.md", card.encode())


def main(argv: list[str] | None = None) -> None:
    """Exports from the command line."""
    parser = argparse.ArgumentParser(prog="vqk export", description="Hand on a finished run.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--to", type=Path, required=True, help="a new or empty folder")
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    export(arguments.run, arguments.to)
    print(f"[export] {arguments.to}")


if __name__ == "__main__":
    main()

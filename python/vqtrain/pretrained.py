"""Models as folders: `model.safetensors` and `config.json`, with no pickle in them.

The folder is the one that training writes (`vqtrain.checkpoint`), so `runs/digits/tokenizer` can
be loaded as it is. A repository of the Hugging Face hub with these two files is a folder that is
downloaded first, with the extra `hub`.
"""

import os
import re
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from vqtrain import checkpoint

Model = TypeVar("Model", bound="Pretrained")
MADE_BY = "vqk run"


class Pretrained(nn.Module):
    """Base of models that `description()` and `state_dict()` rebuild.

    Attributes:
        facts: JSON values that belong to the weights, such as the step and the data they were
            trained on; empty for a model that was not loaded.
    """

    facts: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.facts = {}

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `model.safetensors` and `config.json`, each atomically.

        Args:
            folder: made if it is missing; an earlier model in it is replaced.
        """
        checkpoint.save(Path(folder), self, self.facts)

    @classmethod
    def from_pretrained(cls: type[Model], source: str | Path) -> Model:
        """Rebuilds a model, on the CPU and in eval mode.

        Called on a base class (`Tokenizer`, `Prior`), it finds the subclass that was saved.

        Args:
            source: a folder, or the name of a repository of the hub.

        Raises:
            FileNotFoundError: if there is no such folder, or no checkpoint in it.
            ValueError: if the checkpoint is damaged or not of this class.
            ModuleNotFoundError: if it is a name and the extra `hub` is not installed.
        """
        folder = local(source)
        kind = checkpoint.read_header(folder, MADE_BY)["kind"]
        known = {c.__name__: c for c in _family(cls)}
        if kind not in known:
            raise ValueError(f"{folder} must hold one of {', '.join(sorted(known))}, got {kind!r}")
        model, header = checkpoint.load(folder, known[kind], MADE_BY)
        model.facts = header["facts"]
        return model


def local(source: str | Path) -> Path:
    """The folder that `source` is, or that the hub's repository of that name is downloaded to.

    Raises:
        FileNotFoundError: if it is neither a folder nor a name like `owner/name`, or such a name
            whose owner is the name of a folder here.
        ModuleNotFoundError: if it is a name and the extra `hub` is not installed.
    """
    path = Path(source)
    if path.is_dir():
        return path
    name = os.fspath(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(f"source must be a folder or a hub name owner/name, got {name!r}")
    if path.parent.is_dir():  # a mistyped folder is no name to ask a server for
        raise FileNotFoundError(
            f"source must be a folder, since {path.parent} is one here, got {name!r}, which is "
            f"not in it"
        )
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"source must be a folder where huggingface_hub is not installed, got {name!r}: "
            "`pip install 'vqkernels[hub]'`"
        ) from error
    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))


def _family(base: type[Model]) -> list[type[Model]]:
    """A class and all its subclasses."""
    return [base, *(c for child in base.__subclasses__() for c in _family(child))]

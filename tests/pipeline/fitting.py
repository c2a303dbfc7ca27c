"""Small trainings for the tests of the loop: a VQ-VAE with a moving codebook, and a prior."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vqtrain.config import CheckpointConfig, FitConfig, LogConfig
from vqtrain.fit import Order, Trainer, Validation
from vqtrain.models import VQVAE, Signal, VQVAEConfig
from vqtrain.priors import CodeSpace, GatedPixelCNN, PixelCNNConfig
from vqtrain.train_prior import PriorObjective
from vqtrain.train_tokenizer import TokenizerObjective

ROWS = 24


def prior() -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(PixelCNNConfig(width=4, layers=2, dropout=0.1), CodeSpace(4, (2, 2), 2))


def tokenizer(**config: Any) -> VQVAE:
    torch.manual_seed(0)
    sizes = {"hidden": 4, "residual_hidden": 4, "residual_blocks": 1, "embedding_dim": 4}
    settings = VQVAEConfig(**{**sizes, "dropout": 0.1, **config})
    return VQVAE(settings, Signal((4, 4), channels=1, levels=17, num_labels=2))


def trainer(
    folder: Path,
    model: GatedPixelCNN | VQVAE,
    *,
    values: list[float] | None = None,
    before_batch: Callable[[int], None] = lambda number: None,
    accelerator: Accelerator | None = None,
    settings: dict[str, Any] | None = None,
    log: LogConfig = LogConfig(),  # noqa: B008
    checkpoints: CheckpointConfig = CheckpointConfig(),  # noqa: B008
    **config: Any,
) -> Trainer:
    """What trains a model on a few random items.

    Args:
        values: what validation pretends to find, in turn; otherwise it measures.
        before_batch: called with the number of the batch, from 0.
        config: fields of FitConfig.
    """
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(ROWS) % 2
    objective: TokenizerObjective | PriorObjective
    if isinstance(model, VQVAE):
        items = torch.randint(17, (ROWS, 1, 4, 4), generator=generator, dtype=torch.uint8)
        objective = TokenizerObjective(model)
    else:
        items = torch.randint(2, (ROWS, 2, 2), generator=generator) * 3
        objective = PriorObjective(model)
    script = iter(values or [])
    numbers = iter(range(10**9))

    def batch(rows: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        before_batch(next(numbers))
        return items[rows], labels[rows]

    def validate() -> Validation:
        assert not model.training
        assert not torch.is_grad_enabled()
        return Validation(next(script) if values else model.nll(items, labels).mean().item())

    fields = {"steps": 8, "batch_size": 8, "validate_every": 2, "warmup_steps": 0, **config}
    section = FitConfig(**fields)
    return Trainer(
        objective=objective,
        config=section,
        accelerator=accelerator or Accelerator(cpu=True),
        folder=folder,
        order=Order(ROWS, 1, section.batch_size, None, seed=0),
        batch=batch,
        validate=validate,
        settings=settings or {"prior": fields},
        facts={"origin": "test"},
        log=log,
        checkpoints=checkpoints,
    )


def lines(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()

"""Options that do not fit the module or each other."""

from __future__ import annotations

from typing import Any

from vqkernels.options import Entropy, Gradient, LevelDropout, Orthogonal, Sample, TopK, Update


def check_assign(assign: Any, num_embeddings: int) -> None:
    if not (assign is None or isinstance(assign, (Sample, TopK))):
        raise TypeError(f"assign must be Sample(...), TopK(...) or None, got {assign!r}")
    if isinstance(assign, TopK) and assign.k > num_embeddings:
        raise ValueError(f"TopK.k must be at most num_embeddings={num_embeddings}, got {assign.k}")


def check_regularize(regularize: Any, update: Update) -> None:
    if not isinstance(regularize, tuple) or not all(
        isinstance(option, (Entropy, Orthogonal)) for option in regularize
    ):
        raise TypeError(
            f"regularize must be a tuple of Entropy(...) and Orthogonal(...), got {regularize!r}"
        )
    for option in regularize:
        if isinstance(option, Orthogonal) and not isinstance(update, Gradient):
            raise ValueError(
                f"regularize={option} must have a codebook that gradients reach, "
                f"update=Gradient(...), got update={update}"
            )


def check_dropout(dropout: Any, levels: int) -> None:
    if dropout is None:
        return
    if not isinstance(dropout, LevelDropout):
        raise TypeError(f"dropout must be LevelDropout(...) or None, got {dropout!r}")
    for name in ("keep", "multiple_of"):
        value = getattr(dropout, name)
        if value > levels:
            raise ValueError(f"dropout.{name} must be at most levels={levels}, got {value}")

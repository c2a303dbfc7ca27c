"""What a run may say about its data, and what a model remembers of it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data.

    Args:
        name: data set.
        split: of `digits`: which committed index file, see `vqtrain.data.digits`.
        warped_copies: of `digits`: flagged warped copies of each training image.
    """

    name: str = "digits"
    split: Literal["stratified", "ordered"] = "stratified"
    warped_copies: int = 12

    def __post_init__(self) -> None:
        if self.warped_copies < 0:
            raise ValueError(f"warped_copies must be at least 0, got {self.warped_copies}")


def provenance(config: DataConfig, seed: int) -> dict[str, Any]:
    """What a model was trained on, as JSON types: equal to what is read back from a file."""
    facts: dict[str, Any] = json.loads(json.dumps({**asdict(config), "seed": seed}))
    return facts

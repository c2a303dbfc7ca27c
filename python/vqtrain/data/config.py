"""What a run may say about its data, and what a model remembers of it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data.

    Args:
        name: `digits`, `photos`, `shapes`, `tones`, `moving-digits`, or an adapter: `folder:DIR`
            (class sub-folders of pictures or sounds), `npy:FILE` or `hf:NAME`.
        size: lengths of an item's axes; for photos and adapters. Empty takes the data set's own,
            which a folder does not have.
        channels: of pictures from `folder` and `hf`: 3 for colour, 1 for grey.
        levels: of `npy`: different values of an entry.
        train_size: rows of an epoch where items are made or cropped as they are needed: `shapes`,
            `tones`, `moving-digits`, `photos`.
        held_out: items in each of validation and test, of `shapes`, `tones` and `moving-digits`.
        held_out_share: share of the items in each of validation and test, of adapters that come
            without such a split; a hash of an item's name decides.
        held_out_limit: most items of a held-out split that adapters keep, evenly spread over it,
            since they lie in memory; 0 keeps all.
        augment: draws from 1 on are random crops and flips; of `photos` other colours, too. Draw 0
            never is. For `photos`, `folder` and `hf`.
        sample_rate: that sounds of `folder` are resampled to, in Hz.
        split: of `digits` and `moving-digits`: which committed index file, see
            `vqtrain.data.digits`.
        warped_copies: of `digits`: flagged warped copies of each training image.
    """

    name: str = "digits"
    size: tuple[int, ...] = ()
    channels: int = 3
    levels: int = 256
    train_size: int = 24000
    held_out: int = 1200
    held_out_share: float = 0.1
    held_out_limit: int = 0
    augment: bool = True
    sample_rate: int = 16000
    split: Literal["stratified", "ordered"] = "stratified"
    warped_copies: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))  # YAML gives a list
        for name in ("train_size", "held_out", "sample_rate"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")
        if len(self.size) > 3 or any(length < 1 for length in self.size):
            raise ValueError(f"data.size must be up to three positive lengths, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"data.channels must be 1 or 3, got {self.channels}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"data.levels must be between 2 and 256, got {self.levels}")
        if self.held_out_limit < 0:
            raise ValueError(f"data.held_out_limit must be at least 0, got {self.held_out_limit}")
        if not 0 < self.held_out_share < 0.5:
            raise ValueError(f"data.held_out_share must be in (0, 0.5), got {self.held_out_share}")
        if self.warped_copies < 0:
            raise ValueError(f"data.warped_copies must be at least 0, got {self.warped_copies}")


def provenance(config: DataConfig, seed: int) -> dict[str, Any]:
    """What a model was trained on, as JSON types: equal to what is read back from a file."""
    facts: dict[str, Any] = json.loads(json.dumps({**asdict(config), "seed": seed}))
    return facts

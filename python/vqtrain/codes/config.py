"""What a run may say about its codes on disk."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Codes on disk.

    Args:
        draws: draws of each training item that are encoded; 0 takes all of a training set that
            has a limited number of them, and one of any other.
        shard_items: most items of a file. A killed extraction loses at most the file it was at.
        batch_size: items encoded at a time.
    """

    draws: int = 0
    shard_items: int = 65536
    batch_size: int = 1024

    def __post_init__(self) -> None:
        for name, least in (("draws", 0), ("shard_items", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def train_draws(self, available: int | None) -> int:
        """How many draws to encode of a training set that has `available`, None for no limit.

        Raises:
            ValueError: if it has fewer than were asked for.
        """
        if available is not None and self.draws > available:
            raise ValueError(
                f"extract.draws must be at most {available}, the draws of the training set, "
                f"got {self.draws}"
            )
        return self.draws or available or 1

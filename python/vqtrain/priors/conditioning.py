"""What a prior is told about its level: the codes of the levels above it, as one feature map."""

import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain.models.spatial import CONV, resize
from vqtrain.models.tokenizer import Codes
from vqtrain.priors.prior import CodeSpace


class _ResidualBlock(nn.Module):
    """x + conv1(relu(conv3(relu(x))))."""

    def __init__(self, width: int, ndim: int) -> None:
        super().__init__()
        self.wide = CONV[ndim](width, width, 3, padding=1)
        self.narrow = CONV[ndim](width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.relu(self.wide(F.relu(x))))


class UpperLevels(nn.Module):
    """Codes of all levels above to one feature map on the grid of the level below them.

    Each level is embedded, seen in context by residual convolutions on its own grid, and repeated
    to the finer grid by nearest value; the levels are added (the conditioning stack of van den
    Oord et al. 2017, arXiv 1711.00937, and Razavi et al. 2019, arXiv 1906.00446). The map depends
    on no code of the level itself, so a prior may use all of it at every position without breaking
    causality, and computes it once per sample.

    Args:
        space: of the level that is conditioned; must have levels above.
        width: channels of the map.
        blocks: residual blocks per level, each of which sees one position further.

    Raises:
        ValueError: if there is no level above.
    """

    def __init__(self, space: CodeSpace, width: int, blocks: int = 2) -> None:
        super().__init__()
        if not space.upper:
            raise ValueError("space must have a level above, got upper ()")
        self.grid = space.grid
        self.embeddings = nn.ModuleList(nn.Embedding(k, width) for k, _ in space.upper)
        self.contexts = nn.ModuleList(
            nn.Sequential(*(_ResidualBlock(width, len(grid)) for _ in range(blocks)))
            for _, grid in space.upper
        )

    def forward(self, upper: Codes) -> Tensor:
        """`(B, *grid)` integer codes of every level above, top first, to `(B, width, *grid)`."""
        levels = zip(upper, self.embeddings, self.contexts, strict=True)
        maps = [
            resize(context(embedding(codes.long()).movedim(-1, 1)), self.grid)
            for codes, embedding, context in levels
        ]
        return sum(maps[1:], maps[0])


class Condition(nn.Module):
    """Label and upper levels as one vector per position, for priors that add them to a stream.

    Args:
        space: what is told; the table of labels ends with the null label.
        width: channels of a vector.
        blocks: residual blocks over each upper level.
    """

    def __init__(self, space: CodeSpace, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.label = nn.Embedding(space.num_labels + 1, width)
        self.upper = UpperLevels(space, width, blocks) if space.upper else None

    def forward(self, labels: Tensor, upper: Codes = ()) -> Tensor:
        """`(B, T, width)` in raster order; `(B, 1, width)` where there is no level above."""
        told: Tensor = self.label(labels)[:, None]
        return told if self.upper is None else told + self.upper(upper).flatten(2).mT

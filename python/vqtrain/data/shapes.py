"""Coloured shapes on grey: 32x32 pixels, 4 shapes times 6 colours, and a rule that reads both.

Position, size, a small rotation, brightness and the shade behind vary. The shapes are anti-aliased
and have equal areas, so that none is told by its size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vqtrain.data.config import DataConfig
from vqtrain.data.dataset import Dataset
from vqtrain.data.procedural import Recipe, between, procedural_dataset
from vqtrain.models.tokenizer import Signal

SIZE, LEVELS = 32, 256
COLOURS = {
    "red": (212, 44, 44),
    "yellow": (228, 178, 20),
    "green": (52, 160, 60),
    "cyan": (30, 168, 184),
    "blue": (48, 84, 200),
    "purple": (150, 56, 184),
}
SHAPES = ("circle", "square", "triangle", "cross")
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
ROTATION = 0.25  # radians, either way
# Below this difference of the colour channels, in levels, a picture shows no coloured shape.
LEAST_CHROMA = 24.0


def load_shapes(config: DataConfig, seed: int) -> Dataset:
    """The data set; see `procedural_dataset`."""
    signal = Signal(size=(SIZE, SIZE), channels=3, levels=LEVELS, num_labels=len(CLASSES))
    recipe = Recipe(render, factors=6, signal=signal, class_names=CLASSES)
    return procedural_dataset(dict.fromkeys(("train", "validation", "test"), recipe), config, seed)


def render(labels: Tensor, u: Tensor) -> Tensor:
    """Draws shapes.

    Args:
        labels: `(n,)` int64, `colour * 4 + shape`.
        u: `(n, 6)` uniforms: x, y, size, rotation, brightness, background.

    Returns:
        `(n, 3, 32, 32)` uint8.
    """
    x, y, size, rotation, brightness, background = u.float().unbind(1)
    middle = (SIZE - 1) / 2
    centre = torch.stack((between(x, -4, 4), between(y, -4, 4)), dim=1) + middle
    inside = _coverage(
        labels % len(SHAPES), centre, between(size, 6, 8), between(rotation, -ROTATION, ROTATION)
    )
    shade = between(background, 130, 245)[:, None, None, None]
    paint = _palette()[labels // len(SHAPES)] * between(brightness, 0.85, 1.1)[:, None]
    picture = shade + (paint.clamp(max=LEVELS - 1)[:, :, None, None] - shade) * inside[:, None]
    return picture.round().to(torch.uint8)


def read_shapes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Reads colour and shape by rule; real pictures are read right almost without exception.

    Saturated pixels are the shape. Its colour is the nearest in hue; its form is the one that,
    drawn with the same centre and area, overlaps it best.

    Args:
        x: `(n, 3, 32, 32)` levels, integer or floating (decoder means).

    Returns:
        Two `(n,)` int64 tensors, indices of `COLOURS` and `SHAPES`; -1 where nothing is coloured.
    """
    x = x.float()
    chroma = x.amax(1) - x.amin(1)
    # The mean of the hundred most saturated pixels; the smallest shape has 113.
    peak = chroma.flatten(1).topk(100).values.mean(1)
    inside = ((chroma / peak.clamp(min=1e-6)[:, None, None] - 0.15) / 0.7).clamp(0, 1)
    area = inside.sum((1, 2)).clamp(min=1)

    paint = (x * inside[:, None]).sum((2, 3)) / area[:, None]
    colour = (_hue(paint) @ _hue(_palette()).T).argmax(1)

    ticks = torch.arange(SIZE, dtype=x.dtype, device=x.device)
    across, down = inside.sum(1) @ ticks / area, inside.sum(2) @ ticks / area
    centre, radius = torch.stack((across, down), dim=1), (area / math.pi).sqrt()
    overlaps = []
    for number in range(len(SHAPES)):
        kind = torch.full_like(colour, number)
        turned = []
        for rotation in torch.linspace(-ROTATION, ROTATION, 5).tolist():
            template = _coverage(kind, centre, radius, torch.full_like(radius, rotation))
            common = torch.minimum(template, inside).sum((1, 2))
            turned.append(common / torch.maximum(template, inside).sum((1, 2)))
        overlaps.append(torch.stack(turned).amax(0))
    shape = torch.stack(overlaps).argmax(0)
    nothing = peak < LEAST_CHROMA
    return colour.masked_fill(nothing, -1), shape.masked_fill(nothing, -1)


def factors_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and shape of labels, as `read_shapes` returns them."""
    return labels // len(SHAPES), labels % len(SHAPES)


def _palette() -> Tensor:
    return torch.tensor(list(COLOURS.values()), dtype=torch.float32)


def _hue(paint: Tensor) -> Tensor:
    """`(n, 3)` colours to unit vectors in the plane across the grey axis."""
    return torch.nn.functional.normalize(paint - paint.mean(1, keepdim=True), dim=1)


def _coverage(shapes: Tensor, centre: Tensor, radius: Tensor, rotation: Tensor) -> Tensor:
    """`(n, 32, 32)` share of each pixel that is covered, from signed distances to the outline.

    Args:
        shapes: `(n,)` indices of `SHAPES`.
        centre: `(n, 2)` x and y, in pixels.
        radius: `(n,)` of the circle with the shape's area.
        rotation: `(n,)` radians.
    """
    ticks = torch.arange(SIZE, dtype=centre.dtype)
    x = ticks[None, None, :] - centre[:, 0, None, None]
    y = ticks[None, :, None] - centre[:, 1, None, None]
    cos, sin = rotation.cos()[:, None, None], rotation.sin()[:, None, None]
    x, y = x * cos + y * sin, y * cos - x * sin
    distance = torch.empty_like(x)
    for number, outline in enumerate(_OUTLINES):
        chosen = shapes == number
        distance[chosen] = outline(x[chosen], y[chosen], radius[chosen, None, None])
    return (0.5 - distance).clamp(0, 1)


def _circle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt() - radius


def _square(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - radius * (math.sqrt(math.pi) / 2)


def _triangle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Equilateral, a corner up; area 3 sqrt(3) times the square of the inscribed radius."""
    sides = torch.maximum(x.abs() * (math.sqrt(3) / 2) - y / 2, y)
    return sides - radius * math.sqrt(math.pi / (3 * math.sqrt(3)))


def _cross(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Two bars of aspect 1 : 0.36; area (8 * 0.36 - 4 * 0.36^2) times the square of half a bar."""
    long = radius * math.sqrt(math.pi / (8 * 0.36 - 4 * 0.36**2))
    x, y = x.abs(), y.abs()
    return torch.maximum(torch.maximum(x, y) - long, torch.minimum(x, y) - 0.36 * long)


# In the order of SHAPES.
_OUTLINES: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...] = (
    _circle,
    _square,
    _triangle,
    _cross,
)

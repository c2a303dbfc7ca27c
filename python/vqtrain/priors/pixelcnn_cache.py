"""Sampling a gated PixelCNN without computing anything twice.

A plain forward per position costs the whole grid each time. But stack k changes only when the
index on axis k does: for pictures, stack 0 is computed once per row, for all its columns, and only
the last stack goes position by position. Of the inputs of each layer a stack keeps the few slabs
(rows, frames) that its kernel reaches back to; the last stack keeps its line. What the levels
above, the label and the stacks before tell a stack is added up for a whole slab at a time.

Features lie channels last here, so that a window of a layer's inputs is one row of a matrix
product. At a batch of one the time goes into launching operations, not into arithmetic: the last
stack has four of them per layer, and its views are taken beforehand. All buffers keep their size
and place, and nothing waits for the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.tokenizer import Codes, Size

if TYPE_CHECKING:
    from vqtrain.priors.pixelcnn import GatedPixelCNN


class PixelCNNCache:
    """Everything that `GatedPixelCNN.step` keeps, for `len(labels)` grids.

    Args:
        model: its weights are copied into matrices, once.
        labels: `(B,)` int64.
        upper: codes of the levels above, top first.
    """

    def __init__(self, model: GatedPixelCNN, labels: Tensor, upper: Codes) -> None:
        self.grid = model.space.grid
        self.embedding = model.embedding.weight.detach()
        self.codes = labels.new_zeros(len(labels), *self.grid)
        self.columns = self.codes.flatten(1).unbind(1)
        told = model.told_by(upper)
        told = None if told is None else told.movedim(1, -1)
        last = len(self.grid) - 1
        self.slabs = [_Slabs(model, axis, labels, told) for axis in range(last)]
        self.line = _Line(model, last, labels, told)
        self.head = _Head(model)

    def step(self, code: Tensor | None, position: int) -> Tensor:
        """Logits `(B, K)` of a position, told the code before it."""
        index = _unravel(position, self.grid)
        if code is not None:
            self.columns[position - 1].copy_(code)
        for axis, slabs in enumerate(self.slabs):
            if not any(index[axis + 1 :]):  # the first position of a new slab
                here = index[: axis + 1]
                next_stack = (*self.slabs[1:], self.line)[axis]
                slabs.advance(here, self._embedded_before(here), next_stack)
        if code is not None and index[-1]:
            self.line.add(self.embedding, code, index[-1])
        return self.head(self.line.advance(index[-1]))

    def _embedded_before(self, index: Size) -> Tensor | None:
        """`(B, *slab, W)` of the codes one slab earlier; None for the first slab of its axis."""
        *before, own = index
        if not own:
            return None
        return F.embedding(_slab(self.codes, (*before, own - 1)), self.embedding)


class _Stack:
    """The weights of one stack in all layers, and what the others tell it.

    Attributes:
        convs: per layer `(window, 2 W)`, its rows in the order of a window's entries.
        given: per layer `(B, *grid[axis:], 2 W)`: biases and what the stack before sees, in the
            slab that the stack before has reached.
    """

    def __init__(
        self, model: GatedPixelCNN, axis: int, labels: Tensor, upper: Tensor | None
    ) -> None:
        layers: list[Any] = list(model.layers)
        width = model.config.width
        own = slice(2 * width * axis, 2 * width * (axis + 1))
        self.grid, self.axis, self.upper = model.space.grid, axis, upper
        self.parts = [layer.stacks[axis] for layer in layers]
        self.convs = [_matrix(part.conv) for part in self.parts]
        self.biases = [part.conv.bias for part in self.parts]
        self.labels = [layer.label(labels)[:, own] for layer in layers]
        if upper is not None:
            self.uppers = [_matrix(layer.upper)[:, own] for layer in layers]
            self.labels = [
                label + layer.upper.bias[own]
                for label, layer in zip(self.labels, layers, strict=True)
            ]
        if axis:
            links = [layer.links[axis - 1] for layer in layers]
            self.links = [_matrix(link) for link in links]
            self.biases = [bias + link.bias for bias, link in zip(self.biases, links, strict=True)]
        shape = (len(labels), *self.grid[axis:], 2 * width)
        self.given = [bias.expand(shape).contiguous() for bias in self.biases]

    def hear(self, layer: int, seen: Tensor, index: Size) -> None:
        """Takes what the stack before sees in its slab at `index`, `(B, *grid[axis:], 2 W)`."""
        self.given[layer].copy_(seen @ self.links[layer] + self.biases[layer])

    def told(self, layer: int, index: Size) -> Tensor:
        """`(B, *slab, 2 W)` of label and levels above in the slab at `index`; it broadcasts."""
        label = self.labels[layer].unflatten(1, (*[1] * (len(self.grid) - len(index)), -1))
        if self.upper is None:
            return label
        return label + _slab(self.upper, index) @ self.uppers[layer]


class _Slabs(_Stack):
    """A stack before the last one: computed once per slab of the axes after its own.

    `inputs[l]` holds the last slabs of layer l's input, `(B, slabs, *padded, W)`, oldest first.
    """

    def __init__(
        self, model: GatedPixelCNN, axis: int, labels: Tensor, upper: Tensor | None
    ) -> None:
        super().__init__(model, axis, labels, upper)
        self.inputs = []
        for part in self.parts:
            padded = (length + 2 * part.reach for length in self.grid[axis + 1 :])
            shape = (len(labels), part.slabs, *padded, model.config.width)
            self.inputs.append(model.embedding.weight.new_zeros(shape))

    def advance(self, index: Size, before: Tensor | None, next_stack: _Stack) -> None:
        """Computes all layers of the slab at `index` and tells the next stack what it sees."""
        if before is None:
            for slabs in self.inputs:
                slabs.zero_()
        x = before
        for layer, conv in enumerate(self.convs):
            if x is not None:
                self._push(layer, x)
            given = self.given[layer][:, index[-1]]
            seen = torch.addmm(given.flatten(0, -2), self._windows(layer), conv).view_as(given)
            next_stack.hear(layer, seen, index)
            a, b = (seen + self.told(layer, index)).chunk(2, dim=-1)
            x = a.tanh() * b.sigmoid()

    def _push(self, layer: int, x: Tensor) -> None:
        slabs, reach = self.inputs[layer], self.parts[layer].reach
        slabs[:, :-1] = slabs[:, 1:].clone()
        newest = slabs[:, -1]
        for axis, length in enumerate(x.shape[1:-1], start=1):
            newest = newest.narrow(axis, reach, length)
        newest.copy_(x)

    def _windows(self, layer: int) -> Tensor:
        """`(B * slab, window)` of every position of the slab: slabs, kernel offsets, channels."""
        windows, kernel = self.inputs[layer], 2 * self.parts[layer].reach + 1
        after = windows.ndim - 3
        for axis in range(2, 2 + after):
            windows = windows.unfold(axis, kernel, 1)
        # (B, slabs, *slab, W, *offsets) to (B, *slab, slabs, *offsets, W)
        windows = windows.movedim(1, 1 + after).movedim(2 + after, -1)
        return windows.flatten(0, after).flatten(1)


class _Line(_Stack):
    """The last stack, one position at a time along its line.

    `inputs[l]`, `(B, reach + length, W)`, starts with `reach` zeros; a line overwrites the one
    before it, because a window reaches only back. The bias of the 1x1 convolution after the gate
    is a row of its matrix, which meets a column of ones.
    """

    def __init__(
        self, model: GatedPixelCNN, axis: int, labels: Tensor, upper: Tensor | None
    ) -> None:
        super().__init__(model, axis, labels, upper)
        if not axis:
            for layer, given in enumerate(self.given):
                given += self.told(layer, ())
        width, length, count = model.config.width, self.grid[-1], len(labels)
        new = model.embedding.weight.new_zeros
        inputs = [new(count, part.reach + length, width) for part in self.parts]
        self.windows = [
            x.flatten(1).unfold(1, part.slabs * width, width).unbind(1)
            for x, part in zip(inputs, self.parts, strict=True)
        ]
        slots = [x[:, part.reach :].unbind(1) for x, part in zip(inputs, self.parts, strict=True)]
        self.slots = [*slots, [new(count, width)] * length]
        self.columns = [given.unbind(1) for given in self.given]
        self.seen = new(count, 2 * width)
        self.first, self.second = self.seen.chunk(2, dim=1)
        self.gated_and_one = new(count, width + 1).fill_(1)
        self.gated = self.gated_and_one[:, :width]
        layers: list[Any] = list(model.layers)
        self.outputs = [
            torch.cat([_matrix(layer.output), layer.output.bias[None]]) for layer in layers
        ]

    def hear(self, layer: int, seen: Tensor, index: Size) -> None:
        super().hear(layer, seen, index)
        self.given[layer] += self.told(layer, index)

    def add(self, embedding: Tensor, code: Tensor, position: int) -> None:
        """Takes the code before `position` of the line."""
        torch.index_select(embedding, 0, code, out=self.slots[0][position - 1])

    def advance(self, position: int) -> Tensor:
        """Computes all layers at a position of the line: `(B, W)`."""
        for layer, conv in enumerate(self.convs):
            window, slots = self.windows[layer][position], self.slots[layer]
            torch.addmm(self.columns[layer][position], window, conv, out=self.seen)
            torch.mul(self.first.tanh_(), self.second.sigmoid_(), out=self.gated)
            out = self.slots[layer + 1][position]
            if layer:
                torch.addmm(slots[position], self.gated_and_one, self.outputs[layer], out=out)
            else:
                torch.mm(self.gated_and_one, self.outputs[layer], out=out)
        return out


class _Head:
    """The two 1x1 convolutions after the last stack."""

    def __init__(self, model: GatedPixelCNN) -> None:
        first: Any = model.head[1]
        second: Any = model.head[3]
        self.first, self.second = _matrix(first), _matrix(second)
        self.first_bias, self.second_bias = first.bias, second.bias

    def __call__(self, features: Tensor) -> Tensor:
        hidden = torch.addmm(self.first_bias, features.relu(), self.first).relu_()
        return torch.addmm(self.second_bias, hidden, self.second)


def _matrix(conv: Any) -> Tensor:
    """Weight `(O, I, *kernel)` of a convolution as `(kernel * I, O)`."""
    weight: Tensor = conv.weight.detach()
    return weight.movedim((0, 1), (-1, -2)).flatten(0, -2).contiguous()


def _slab(x: Tensor, index: Size) -> Tensor:
    """`(B, *grid, ...)` at an index of its first axes."""
    for own in index:
        x = x[:, own]
    return x


def _unravel(position: int, grid: Size) -> Size:
    index = []
    for length in reversed(grid):
        position, own = divmod(position, length)
        index.append(own)
    return tuple(reversed(index))

"""The loops of machine code, from its branches.

A branch back is not yet a loop: slow paths stand behind the end of the code and return from there.
A loop is what can reach a branch to an address that every path to the branch has passed before.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import NamedTuple

from benchmarks.aot.sass import Instruction

_Graph = dict[int, list[int]]  # address of a block's first instruction -> those of its successors


class Loop(NamedTuple):
    instructions: tuple[Instruction, ...]
    inner: tuple[Loop, ...]

    @property
    def own(self) -> tuple[Instruction, ...]:
        """What is not in a loop inside this one."""
        inside = {i.address for loop in self.inner for i in loop.instructions}
        return tuple(i for i in self.instructions if i.address not in inside)

    def counts(self, trips: int = 1) -> Counter[str]:
        """Instructions by kind in one iteration in which loops inside it make ``trips``."""
        found = Counter(i.kind for i in self.own)
        for loop in self.inner:
            for kind, count in loop.counts(trips).items():
                found[kind] += trips * count
        return found


def loops(code: list[Instruction]) -> list[Loop]:
    """The outermost loops, each with those inside it, in the order of their addresses."""
    blocks = _blocks(code)
    graph = {start: _successors(body, blocks) for start, body in blocks.items()}
    bodies: dict[int, set[int]] = {}
    for end, dominators in _dominators(graph).items():
        for head in graph[end]:
            if head in dominators:
                bodies.setdefault(head, {head}).update(_reaching(graph, head, end))
    return _nested(blocks, sorted(bodies.values(), key=lambda body: (-len(body), min(body))))


def main_loop(code: list[Instruction]) -> Loop | None:
    """The outermost loop with most matrix instructions, of several the longest."""

    def weight(loop: Loop) -> tuple[int, int]:
        return loop.counts()["mma"], len(loop.instructions)

    return max(loops(code), key=weight, default=None)


def _blocks(code: list[Instruction]) -> dict[int, list[Instruction]]:
    """Straight pieces by the address of their first instruction."""
    starts = {i.target for i in code} | {
        after.address for i, after in itertools.pairwise(code) if i.leaves
    }
    blocks: dict[int, list[Instruction]] = {}
    for position, instruction in enumerate(code):
        if position == 0 or instruction.address in starts:
            current = blocks[instruction.address] = []
        current.append(instruction)
    return blocks


def _successors(body: list[Instruction], blocks: dict[int, list[Instruction]]) -> list[int]:
    last = body[-1]
    if last.target == last.address:  # where every kernel's code ends
        return []
    following = [start for start in blocks if start > last.address]
    found = [] if last.always_leaves else [min(following, default=-1)]
    found.append(-1 if last.target is None else last.target)
    return [start for start in dict.fromkeys(found) if start in blocks]


def _dominators(graph: _Graph) -> dict[int, set[int]]:
    """Of every block that can be reached: those that all paths to it pass, itself included."""
    entry = min(graph, default=0)
    before: _Graph = {start: [] for start in graph}
    reached, pending = set[int](), [entry] if graph else []
    while pending:
        start = pending.pop()
        if start not in reached:
            reached.add(start)
            pending += graph[start]
            for successor in graph[start]:
                before[successor].append(start)
    found = {start: {entry} if start == entry else set(reached) for start in reached}
    changed = True
    while changed:
        changed = False
        for start in sorted(reached - {entry}):
            new = {start} | set.intersection(*(found[b] for b in before[start]))
            changed |= new != found[start]
            found[start] = new
    return found


def _reaching(graph: _Graph, head: int, end: int) -> set[int]:
    """Blocks from which ``end`` can be reached without passing ``head``."""
    found, pending = {head}, [end]
    while pending:
        start = pending.pop()
        if start not in found:
            found.add(start)
            pending += [other for other, after in graph.items() if start in after]
    return found


def _nested(blocks: dict[int, list[Instruction]], bodies: list[set[int]]) -> list[Loop]:
    """``bodies`` from the largest to the smallest: disjoint, or one in the other."""
    found = []
    while bodies:
        outer, *rest = bodies
        inside = [body for body in rest if body <= outer]
        bodies = [body for body in rest if not body <= outer]
        listed = tuple(i for start in sorted(outer) for i in blocks[start])
        found.append(Loop(listed, tuple(_nested(blocks, inside))))
    return sorted(found, key=lambda loop: loop.instructions[0].address)

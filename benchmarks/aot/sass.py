"""Machine code of a kernel: its registers, its spills, its loops and what is in them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# Integer, compare, select and min/max: 64 lanes per clock and multiprocessor, half of the rate of
# a float32 multiply-add, from sm_80 to sm_100.
_ALU = frozenset(
    {
        "FMNMX",
        "FMNMX3",
        "FSET",
        "FSETP",
        "FSEL",
        "FCHK",
        "SEL",
        "ISET",
        "ISETP",
        "IMNMX",
        "VIMNMX",
        "VIMNMX3",
        "VIADD",
        "VIADDMNMX",
        "VHMNMX",
        "HMNMX2",
        "IADD",
        "IADD3",
        "IADD32I",
        "IABS",
        "LEA",
        "LOP",
        "LOP3",
        "PLOP3",
        "SHF",
        "SHL",
        "SHR",
        "SGXT",
        "BMSK",
        "PRMT",
        "P2R",
        "R2P",
        "VABSDIFF",
    }
)
_FMA = frozenset({"FADD", "FMUL", "FFMA", "FADD2", "FMUL2", "FFMA2", "HADD2", "HMUL2", "HFMA2"})
_FP64 = frozenset({"DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "DSET"})
_MMA = re.compile(r"(H|I|D|Q|B|OM)?G?MMA$|UTC\w*MMA$|SPMMA$")
_LOCAL = frozenset({"LDL", "STL"})

# "/*01a0*/   @!P0 BRA 0x120 ;", without the encoding that stands after it.
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"0x[0-9a-f]+")
_USAGE = re.compile(r"(REG|STACK|SHARED):(\d+)")


class Instruction(NamedTuple):
    address: int
    opcode: str  # with its modifiers: LDG.E.128
    operands: str

    @property
    def kind(self) -> str:
        """alu | fma | fp64 | mma | local | move | other."""
        name = self.opcode.split(".")[0]
        if name in _ALU:
            return "alu"
        if name in _FMA:
            return "fma"
        if name in _FP64:
            return "fp64"
        if name in _LOCAL:
            return "local"
        if name == "MOV" or self.opcode.startswith("IMAD.MOV"):
            return "move"
        return "mma" if _MMA.fullmatch(name) else "other"


class Resources(NamedTuple):
    """Per thread, but for ``shared``: bytes per block that the code itself names."""

    registers: int
    stack: int
    shared: int


class Loop(NamedTuple):
    """The code between a backward branch and its target, both included."""

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


def instructions(cubin: bytes) -> list[Instruction]:
    """In the order of their addresses."""
    text = _cuobjdump("--dump-sass", cubin)
    return [Instruction(int(a, 16), op, rest) for a, op, rest in _INSTRUCTION.findall(text)]


def resources(cubin: bytes) -> Resources:
    """Spills show as stack: what is called LOCAL there stays 0."""
    found = dict(_USAGE.findall(_cuobjdump("--dump-resource-usage", cubin)))
    return Resources(int(found["REG"]), int(found["STACK"]), int(found["SHARED"]))


def loops(code: Iterable[Instruction]) -> list[Loop]:
    """The outermost loops, each with those inside it, in the order of their addresses."""
    listed = list(code)
    ends: dict[int, int] = {}  # of the last branch back to an address
    for instruction in listed:
        target = _TARGET.search(instruction.operands)
        if instruction.opcode.split(".")[0] == "BRA" and target is not None:
            start = int(target[0], 16)
            if start < instruction.address:  # a branch to itself ends every kernel
                ends[start] = max(instruction.address, ends.get(start, 0))
    return _nested(listed, sorted(ends.items(), key=lambda span: (span[0], -span[1])))


def _nested(code: list[Instruction], spans: list[tuple[int, int]]) -> list[Loop]:
    found = []
    while spans:
        (start, end), *rest = spans
        inside = [span for span in rest if span[1] <= end]
        spans = [span for span in rest if span[1] > end]
        body = [i for i in code if start <= i.address <= end]
        found.append(Loop(tuple(body), tuple(_nested(body, inside))))
    return found


def main_loop(code: Iterable[Instruction]) -> Loop | None:
    """The outermost loop with most matrix instructions, of several the longest."""

    def weight(loop: Loop) -> tuple[int, int]:
        return loop.counts()["mma"], len(loop.instructions)

    return max(loops(code), key=weight, default=None)


def spills(code: Iterable[Instruction]) -> int:
    return sum(i.kind == "local" for i in code)


def _cuobjdump(option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(cuobjdump()), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def cuobjdump() -> Path:
    """The one of the installed Triton: it knows every architecture that Triton compiles for."""
    import triton

    return Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

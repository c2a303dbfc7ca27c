"""Machine code of a kernel: its registers, its stack, its instructions and what they cost."""

from __future__ import annotations

import re
import subprocess
import tempfile
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
_KINDS = {"alu": _ALU, "fma": _FMA, "fp64": _FP64, "local": _LOCAL}

_ENDS = frozenset({"EXIT", "RET", "KILL"})

# "/*01a0*/   @!P0 BRA 0x120 ;", without the encoding that stands after it.
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"(.*\W)?(0x[0-9a-f]+)\s*")
_USAGE = re.compile(r"(REG|STACK|SHARED):(\d+)")


class Instruction(NamedTuple):
    address: int
    opcode: str  # with its modifiers: LDG.E.128
    operands: str
    guard: str = ""  # the predicate before it

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def target(self) -> int | None:
        """Of a branch."""
        found = _TARGET.fullmatch(self.operands) if self.name == "BRA" else None
        return None if found is None else int(found[2], 16)

    @property
    def leaves(self) -> bool:
        """Whether what stands after it may not be next."""
        return self.name == "BRA" or self.name in _ENDS

    @property
    def always_leaves(self) -> bool:
        """Conditions are a guard, or an operand before the target."""
        only = self.name in _ENDS or "," not in self.operands
        return self.leaves and not self.guard and only

    @property
    def kind(self) -> str:
        """alu | fma | fp64 | mma | local | move | other."""
        if self.name == "MOV" or self.opcode.startswith("IMAD.MOV"):
            return "move"
        for kind, names in _KINDS.items():
            if self.name in names:
                return kind
        return "mma" if _MMA.fullmatch(self.name) else "other"


class Resources(NamedTuple):
    """Per thread, but for ``shared``: bytes per block that the code itself names."""

    registers: int
    stack: int
    shared: int


def instructions(cubin: bytes) -> list[Instruction]:
    """In the order of their addresses."""
    text = _cuobjdump("--dump-sass", cubin)
    found = _INSTRUCTION.findall(text)
    return [
        Instruction(int(a, 16), op, rest.strip(), guard.strip()) for a, guard, op, rest in found
    ]


def resources(cubin: bytes) -> Resources:
    """Spills show as stack: what is called LOCAL there stays 0."""
    found = dict(_USAGE.findall(_cuobjdump("--dump-resource-usage", cubin)))
    return Resources(int(found["REG"]), int(found["STACK"]), int(found["SHARED"]))


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

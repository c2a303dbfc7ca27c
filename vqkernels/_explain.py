"""explain: which backend serves an op, said before anything runs. Part of the functional layer."""

from __future__ import annotations

from torch import Tensor

from vqkernels import _checks
from vqkernels._prepare import PreparedCodebook
from vqkernels.ops import dispatch

_EXPLAINED = (
    "nearest_code",
    "nearest_codes",
    "vq_forward",
    "vq_assigned",
    "vq_backward",
    "residual",
    "residual_backward",
    "lookup",
    "code_sums",
    "soft_assign",
    "soft_assign_backward",
    "sample_codes",
)


class Explanation:
    """Which backend serves each op for given inputs, and why the others do not.

    Attributes:
        chosen: op name -> backend name.
        why_not: op name -> {backend name: reason}.
    """

    def __init__(self, chosen: dict[str, str], why_not: dict[str, dict[str, str]]) -> None:
        self.chosen = chosen
        self.why_not = why_not

    def __repr__(self) -> str:
        lines = []
        for op, backend in self.chosen.items():
            lines.append(f"{op}: {backend}")
            lines += [f"    not {name}: {reason}" for name, reason in self.why_not[op].items()]
        return "\n".join(lines)


def explain(
    x: Tensor, codebook: Tensor | PreparedCodebook, *, backend: str | None = None
) -> Explanation:
    """Says which backend every op would use on these inputs, and why not another one.

    Args:
        x, codebook: as for ``nearest_code``; only device and dtype are read.
        backend: as for ``nearest_code``.

    Returns:
        An Explanation; printing it gives the table.

    Raises:
        As ``nearest_code``: a backend asked for by name that cannot run is refused here too.
    """
    if isinstance(codebook, PreparedCodebook):
        codebook = codebook.codebook
    _checks.floating("x", x)
    _checks.codebook(codebook)
    _checks.same_device("codebook", codebook, "x", x)
    chosen: dict[str, str] = {}
    why_not: dict[str, dict[str, str]] = {}
    for op in _EXPLAINED:
        chosen[op] = dispatch.choose(op, x, codebook, backend)
        first = f"backend={backend!r} was asked for" if backend else f"{chosen[op]} comes first"
        why_not[op] = {
            name: dispatch.why_not(op, name, x, codebook) or first
            for name in dispatch.BACKENDS
            if name != chosen[op]
        }
    return Explanation(chosen, why_not)

"""explain: which backend serves an op, said before anything runs. Part of the functional layer."""

from __future__ import annotations

from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._prepare import PreparedCodebook
from vqkernels.functional import check_metric
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
        visited_share: of the codes, which the search looks at for some vectors of x; None where it
            looks at all of them. See ``prepare``.
    """

    def __init__(
        self,
        chosen: dict[str, str],
        why_not: dict[str, dict[str, str]],
        visited_share: float | None,
    ) -> None:
        self.chosen = chosen
        self.why_not = why_not
        self.visited_share = visited_share

    def __repr__(self) -> str:
        lines = []
        for op, backend in self.chosen.items():
            lines.append(f"{op}: {backend}")
            if op == "nearest_code" and self.visited_share is not None:
                lines.append(f"    looks at {self.visited_share:.2%} of the codes")
            lines += [f"    not {name}: {reason}" for name, reason in self.why_not[op].items()]
        return "\n".join(lines)


def explain(
    x: Tensor,
    codebook: Tensor | PreparedCodebook,
    *,
    metric: str = "l2",
    channel_dim: int = 1,
    backend: str | None = None,
) -> Explanation:
    """Says which backend every op would use on these inputs, and why not another one.

    Args:
        x, codebook, metric, channel_dim, backend: as for ``nearest_code``. Where x has another
            shape, only devices and dtypes are read, and the share of the codes that are looked at
            stays unknown.

    Returns:
        An Explanation; printing it gives the table.

    Raises:
        As ``nearest_code``: a backend asked for by name that cannot run is refused here too.
    """
    parts = None
    if isinstance(codebook, PreparedCodebook):
        check_metric(codebook, metric)
        parts, codebook = codebook.parts, codebook.codebook
    _checks.floating("x", x)
    _checks.one_of("metric", metric, _checks.METRICS)
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
    return Explanation(
        chosen, why_not, ops.visited_share(x, codebook, parts, metric, channel_dim, backend)
    )

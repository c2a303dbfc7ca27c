"""Why a case is as far from the FMA peak as it is; shown beside the measured share.

By table, then by case as the rows name it. Numbers are left to the rows.
"""

from __future__ import annotations

REASONS: dict[str, dict[str, str]] = {
    "nearest_code": {},
    "residual_quantize": {},
    "training_step": {},
}

"""Every picture of a run, in one style: ink on white, one accent colour, no frames."""

from vqtrain.pictures.charts import (
    Bits,
    Curve,
    Distances,
    Point,
    bits_chart,
    curve,
    neighbours_chart,
    rate_distortion,
    usage_chart,
)
from vqtrain.pictures.sheets import Panel, sample_sheet, sheet

__all__ = [
    "Bits",
    "Curve",
    "Distances",
    "Panel",
    "Point",
    "bits_chart",
    "curve",
    "neighbours_chart",
    "rate_distortion",
    "sample_sheet",
    "sheet",
    "usage_chart",
]

"""descript-audio-codec's quantizer, without what the packages around it import."""

from __future__ import annotations

from compat import libraries

ResidualVectorQuantize = libraries.dac_quantize().ResidualVectorQuantize

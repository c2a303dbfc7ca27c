"""encodec's quantizer, without the torchaudio that the rest of it needs."""

from __future__ import annotations

from compat import libraries

ResidualVectorQuantizer = libraries.encodec().quantization.vq.ResidualVectorQuantizer

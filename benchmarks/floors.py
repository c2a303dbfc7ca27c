"""What the measurements must show: one run, two threads, medians. Floors, not goals.

Cases are named as the rows name them; a floor on a contender is how many times as long as ours
it takes.
"""

from __future__ import annotations

# table -> case -> share of the FMA peak, at least
PEAK_SHARE: dict[str, dict[str, float]] = {
    "nearest_code": {
        "65536, 1024, 64": 0.75,
        "16384, 8192, 256": 0.85,
        "16384, 8192, 64": 0.75,
        "65536, 16384, 8": 0.80,
        "32768, 65536, 32": 0.75,
        "262144, 512, 8": 0.45,
    },
    "residual_quantize": {"16384, 8 x 1024, 128": 0.60},
    # Beyond one: brute force at the peak would take so many times as long.
    "pruned_search": {
        "65536, 16384, 8, 4x4 photo": 6.0,
        "65536, 16384, 8, whitened 4x4 photo": 4.5,
        "65536, 16384, 8": 2.0,
        "65536, 16384, 32, 4x4 photo": 6.0,
        "16384, 262144, 8, 4x4 photo": 20.0,
    },
}

# table -> case -> contender -> times as long as ours, at least
TIMES_OURS: dict[str, dict[str, dict[str, float]]] = {
    "nearest_code": {
        "65536, 1024, 64": {"faiss IndexFlatL2": 2.5, "torch chunked": 3.0},
        "16384, 8192, 256": {"faiss IndexFlatL2": 2.0, "torch chunked": 3.0},
        "16384, 8192, 64": {"faiss IndexFlatL2": 2.0, "torch chunked": 3.0},
        "65536, 16384, 8": {"faiss IndexFlatL2": 1.0, "torch chunked": 15.0},
        "32768, 65536, 32": {"faiss IndexFlatL2": 2.0, "torch chunked": 8.0},
        "262144, 512, 8": {"faiss IndexFlatL2": 1.3, "torch chunked": 4.0},
        "64, 1024, 64": {"torch N x K": 2.0},
        "256, 1024, 64": {"torch N x K": 2.0},
        "1024, 1024, 64": {"torch N x K": 2.0},
    },
    "training_step": {
        "65536, 1024, 64": {"vector-quantize-pytorch": 25.0},
        "16384, 8192, 256": {"vector-quantize-pytorch": 10.0},
        "16384, 8192, 64": {"vector-quantize-pytorch": 25.0},
        "16384, 16384, 8": {"vector-quantize-pytorch": 100.0},
        "16384, 8 x 1024, 128": {"vector-quantize-pytorch": 15.0},
    },
    "pruned_search": {
        "65536, 16384, 8, 4x4 photo": {"faiss IndexFlatL2": 7.0},
        "65536, 16384, 8, whitened 4x4 photo": {"faiss IndexFlatL2": 5.0},
        "65536, 16384, 8": {"faiss IndexFlatL2": 2.5},
        "65536, 16384, 32, 4x4 photo": {"faiss IndexFlatL2": 15.0},
        "65536, 16384, 32": {"vqkernels dense": 0.95},  # nothing to leave out
        "16384, 262144, 8, 4x4 photo": {"faiss IndexFlatL2": 28.0},
    },
    "pruned_step": {"65536, 16384, 8, whitened 4x4 photo": {"vqkernels dense": 3.0}},
}

# Of a library that has several N x K matrices at a time, and of one that has torch.cdist's.
_MATRICES, _CDIST = 10.0, 5.0
TIMES_OURS["converted_step"] = {
    f"{module}: 16384, 8192, 64, photo patches": {module: floor}
    for module, floor in {
        "vector-quantize-pytorch VectorQuantize": _MATRICES,
        "taming VectorQuantizer2, rewritten": _MATRICES,
        "zalando VectorQuantizerEMA, rewritten": _MATRICES,
        "rosinality Quantize, rewritten": _MATRICES,
        "encodec ResidualVectorQuantizer": _MATRICES,
        "transformers EncodecResidualVectorQuantizer": _MATRICES,
        "transformers MimiSplitResidualVectorQuantizer": _CDIST,
        "diffusers VectorQuantizer": _CDIST,
    }.items()
}

# case -> how many times as long as with a cache a plain forward per position takes, at least; one
# thread.
TIMES_CACHED_SAMPLING = {
    "64 x 8, 32 x 32 of 512, batch 1": 40.0,
    "64 x 8, 32 x 32 of 512, batch 16": 150.0,
}

# Our time with all codes equal over that on the plain case of the same size, at most.
ALL_EQUAL_TIMES_PLAIN = 2.0
# Our peak extra memory over the bytes of x, codebook and outputs, at most, at every size.
EXTRA_MEMORY = 3.0
# Our slowest time per pair over our fastest, from the fewest codes to the most, at most.
TIME_PER_PAIR_SPREAD = 1.2

# Of the pruned search: time per row with the most codes over that with the fewest, 64 times fewer,
# at most; and what bringing the cells of a moved codebook up to date takes of a dense search.
TIME_PER_ROW_GROWTH = 10.0
REFRESH_SHARE = 0.05

# run or table, row (of several with that beginning the best one; none for a run), number, limit,
# whether it is at most that
PIPELINE: tuple[tuple[str, str, str, float, bool], ...] = (
    ("digits-table", "pixels", "total_bpd", 1.72, True),
    ("digits-table", "4x4-K", "total_bpd", 1.96, True),
    ("digits-table", "vae", "total_bpd", 2.05, True),
    ("digits-table", "4x4-K8", "cas", 0.92, False),
    ("digits-table", "4x4-K8", "label_agreement", 0.88, False),
    ("digits-table", "4x4-K8", "conditioning_gap_bits_per_image", 2.0, False),
    ("digits-table", "4x4-K8-masked", "cas", 0.92, False),
    ("digits-table", "4x4-K8-masked", "label_agreement", 0.88, False),
    ("shapes-vqvae2", "", "rule_colour", 0.95, False),
    ("shapes-vqvae2", "", "rule_shape", 0.75, False),
    ("shapes-vqvae2", "", "minutes", 10.0, True),
    ("tones-1d", "", "minutes", 10.0, True),
    ("moving-digits-3d", "", "minutes", 10.0, True),
    ("photos", "", "minutes", 10.0, True),
    ("photos", "", "psnr over k-means", 0.7, False),
)

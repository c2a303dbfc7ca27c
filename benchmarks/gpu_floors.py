"""What the measurements must show on an H200: one run, medians.

Cases are named as the rows name them.
"""

from __future__ import annotations

from benchmarks.peers import OURS

IN_A_GRAPH = "vqkernels, CUDA graph"
NAIVE = "torch N x K"
LIBRARY = "vector-quantize-pytorch"

# (table, contender of ours) -> case -> milliseconds, at most
MILLISECONDS: dict[tuple[str, str], dict[str, float]] = {
    ("nearest_code", OURS): {
        "262144, 16384, 8, Gaussian, k-means codes": 0.6,
        "262144, 16384, 8, photo patches": 0.75,
        "65536, 8192, 256, Gaussian, k-means codes": 0.8,
        "65536, 8192, 256, photo patches": 2.0,
        "1048576, 65536, 32, Gaussian, k-means codes": 15.0,
        "1048576, 65536, 32, photo patches": 32.0,
    },
    ("training_step", IN_A_GRAPH): {
        "65536, 1024, 64, Gaussian, k-means codes": 0.15,
        "65536, 1024, 64, photo patches": 0.20,
    },
}

# case of nearest_code -> TFLOP/s of 2NKD, at least
TFLOPS = {
    "1048576, 16384, 64, bfloat16, Gaussian, k-means codes": 380.0,
    "1048576, 16384, 128, bfloat16, Gaussian, k-means codes": 450.0,
    "1048576, 16384, 256, bfloat16, Gaussian, k-means codes": 560.0,
}

# case of nearest_code -> how many times as long as ours the whole N x K matrix in float32 takes,
# at least; at 1048576, 65536, 32 it would need 275 GB.
TIMES_NAIVE = {
    "262144, 16384, 8, Gaussian, k-means codes": 15.0,
    "262144, 16384, 8, photo patches": 15.0,
    "65536, 1024, 64, Gaussian, k-means codes": 6.0,
    "65536, 1024, 64, photo patches": 6.0,
    "65536, 8192, 256, Gaussian, k-means codes": 4.0,
    "65536, 8192, 256, photo patches": 4.0,
}
# The fastest of the libraries for GPUs, at its own precision, on every case of nearest_code.
TIMES_FASTEST = 1.0

# A training step against the library: times as long as ours, and our extra memory over its own.
LIBRARY_CASE = "65536, 8192, 64, Gaussian, k-means codes"
TIMES_LIBRARY = 20.0
MEMORY_OF_LIBRARY = 1 / 20

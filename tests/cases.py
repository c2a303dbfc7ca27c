"""The one table of named inputs, for tests and benchmarks.

``DATA`` says what a pair (x, codebook) of any size can hold, ``SEARCH`` holds the pairs that the
search is tested on, ``SHAPES`` the sizes where kernels have edges, ``LAYOUTS`` the ways in which
the same rows can lie in memory. ``speed_cases.py`` puts ``DATA`` at the sizes of the benchmarks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
METRICS = ("l2", "cosine")
ESTIMATORS = ("straight_through", "rotation")

# (N, K, D): ones, primes, one past a vector or a tile, more codes than rows, many channels.
SHAPES = (
    (1, 1, 1),
    (1, 5, 3),
    (3, 1, 7),
    (2, 2, 1),
    (17, 33, 1),
    (31, 9, 2),
    (64, 64, 64),
    (65, 129, 4),
    (97, 257, 31),
    (130, 1031, 5),
    (5, 300, 257),
    (1025, 16, 17),
    (513, 2049, 8),
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(n: int = 300, k: int = 257, d: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = generator(seed)
    return torch.randn(n, d, generator=g), torch.randn(k, d, generator=g)


@functools.cache
def photos() -> list[Tensor]:
    """Colour photographs in the scikit-learn and scikit-image wheels: (H, W, 3) in [0, 1]."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    found = [*load_sample_images().images, skimage.data.astronaut(), skimage.data.coffee()]
    return [torch.from_numpy(photo.astype("float32") / 255.0) for photo in found]


@functools.cache
def photo_patches(
    size: int, colour: bool, components: int | None = None, stride: int | None = None
) -> Tensor:
    """Patches of the photographs, as rows in any order.

    With ``components``: their leading principal components. ``stride`` is 2 * size by default.
    """
    rows = []
    for photo in photos():
        image = photo if colour else photo.mean(dim=2, keepdim=True)
        step = stride or 2 * size
        windows = image.unfold(0, size, step).unfold(1, size, step)
        rows.append(windows.reshape(-1, windows[0, 0].numel()))
    patches = torch.cat(rows)
    patches = patches[torch.randperm(len(patches), generator=generator(0))[:16384]]
    if components is not None:
        centred = patches - patches.mean(dim=0)
        _, _, directions = torch.linalg.svd(centred.T @ centred)
        patches = centred @ directions[:components].T
    return patches.contiguous()


def lloyd(rows: Tensor, k: int, iterations: int = 3) -> Tensor:
    """k-means codes: what a trained codebook looks like, with many nearly equal distances."""
    codes = rows[torch.randperm(len(rows), generator=generator(1))[:k]].clone()
    for _ in range(iterations):
        nearest = torch.cat([torch.cdist(part, codes).argmin(dim=1) for part in rows.split(2048)])
        counts = torch.bincount(nearest, minlength=k)
        sums = torch.zeros_like(codes).index_add_(0, nearest, rows)
        codes = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], codes)
    return codes


def photo(size: int, colour: bool, components: int | None, k: int, n: int) -> _Maker:
    def make() -> tuple[Tensor, Tensor]:
        rows = photo_patches(size, colour, components)
        return rows[:n].contiguous(), lloyd(rows, k)

    return make


def _photo_of_size(n: int, k: int, d: int) -> tuple[Tensor, Tensor]:
    """8x8 grey patches where D is 64, otherwise the first D components of 2x2 colour patches."""
    rows = photo_patches(8, False, None, 4) if d == 64 else photo_patches(2, True, d)
    assert n <= len(rows), (n, len(rows))
    return rows[:n].contiguous(), lloyd(rows[:n], k)


def residual(n: int, k: int, d: int, levels: int) -> tuple[Tensor, Tensor]:
    """x (N, D) and codebooks (L, K, D), each of them k-means codes of what those before leave.

    Each level is made of rows of its own: what is left of a row that became a code is zero, and
    equal codes would make a search easier than it is.
    """
    codebooks: list[Tensor] = []
    for level in range(levels):
        left = gaussian(n, 1, d, seed=1 + level)[0]
        for codes in codebooks:
            left = left - codes[torch.cdist(left, codes).argmin(dim=1)]
        codebooks.append(lloyd(left, k, iterations=1))
    return gaussian(n, 1, d)[0], torch.stack(codebooks)


def _scaled(factor: float) -> _SizedMaker:
    def make(n: int = 300, k: int = 257, d: int = 24) -> tuple[Tensor, Tensor]:
        x, codebook = gaussian(n, k, d, seed=2)
        return x * factor, codebook * factor

    return make


def _shifted(n: int = 300, k: int = 257, d: int = 24) -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(n, k, d, seed=3)
    return x + 1000.0, codebook + 1000.0


def _mixed_scales() -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(seed=4)
    spread = 10.0 ** torch.linspace(-18, 18, codebook.shape[0])[:, None]
    rows = 10.0 ** torch.linspace(-18, 18, x.shape[0])[:, None]
    return x * rows, codebook * spread


def _denormals(quantum: float) -> _Maker:
    """Small multiples of the smallest denormal of a dtype: the differences are denormals too."""

    def make() -> tuple[Tensor, Tensor]:
        g = generator(5)
        x = torch.randint(-50, 50, (200, 6), generator=g)
        codebook = torch.randint(-50, 50, (65, 6), generator=g)
        return x * quantum, codebook * quantum

    return make


def _integer_grid() -> tuple[Tensor, Tensor]:
    """Small integers: distances are exact in every dtype and most minima are shared."""
    g = generator(6)
    x = torch.randint(-3, 4, (400, 3), generator=g).float()
    return x, torch.randint(-3, 4, (200, 3), generator=g).float()


def _half_duplicated(n: int = 300, k: int = 258, d: int = 24) -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(n, k, d, seed=7)
    half = codebook[: k // 2]
    return x, torch.cat([half, half])


def _permuted_coordinates() -> tuple[Tensor, Tensor]:
    """Real ties whose float64 scores differ by rounding: F decides, in ascending order of i."""
    g = generator(8)
    codebook = torch.randn(8, 16, generator=g)
    shuffles = [codebook[:, torch.randperm(16, generator=g)] for _ in range(16)]
    x = torch.randn(300, 1, generator=g).expand(300, 16).contiguous()
    return x, torch.cat([codebook, *shuffles])


def _all_equal(n: int = 300, k: int = 300, d: int = 24) -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(n, 1, d, seed=9)
    return x, codebook.expand(k, -1).contiguous()


def _x_on_codes() -> tuple[Tensor, Tensor]:
    _, codebook = gaussian(seed=10)
    return codebook[torch.randperm(len(codebook), generator=generator(10))], codebook


def _nonfinite_rows() -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(seed=11)
    x[::7, 3] = torch.nan
    x[1::7, 0] = torch.inf
    x[2::7, -1] = -torch.inf
    return x, codebook


def _nonfinite_codes() -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(seed=12)
    codebook[0] = torch.nan
    codebook[3::5, 1] = torch.inf
    codebook[4::5, 2] = torch.nan
    return x, codebook


def _no_finite_code() -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(k=70, seed=13)
    codebook[:, 1] = torch.nan
    return x, codebook


def _largest_floats() -> tuple[Tensor, Tensor]:
    """Finite in float32 while squares, sums and norms are not."""
    x, codebook = gaussian(seed=14)
    return x.sign() * 3.0e38, codebook * 1e38


def _zeros() -> tuple[Tensor, Tensor]:
    x, codebook = gaussian(seed=15)
    x[::3] = 0.0
    codebook[5] = 0.0
    return x, codebook


def _one_cluster_far_away() -> tuple[Tensor, Tensor]:
    """All codes within rounding of each other, seen from afar: the screen certifies nothing."""
    x, codebook = gaussian(n=150, k=700, d=8, seed=16)
    return x * 100.0, 5.0 + codebook * 1e-6


def far_codes(
    n: int = 300, k: int = 257, d: int = 24, share: float = 0.5, factor: float = 1e6
) -> tuple[Tensor, Tensor]:
    """A share of the codes, drawn at random, ``factor`` times as far out as the others."""
    x, codebook = gaussian(n, k, d, seed=18)
    far = torch.randperm(k, generator=generator(18))[: round(share * k)]
    codebook[far] *= factor
    return x, codebook


def _far_codes() -> tuple[Tensor, Tensor]:
    """Rows among the near codes, among the far ones, and between the two."""
    x, codebook = far_codes(factor=1e3)
    x[::5] *= 30.0
    x[1::5] *= 1e3
    return x, codebook


def near_ties(n: int = 64, k: int = 512, d: int = 8) -> tuple[Tensor, Tensor]:
    """Rows near the middle of a sphere of codes: distances agree to four digits or more."""
    x, codebook = gaussian(n, k, d, seed=17)
    radius = 1.0 + 1e-6 * d * torch.rand(k, 1, generator=generator(17))
    return 0.1 + x * 1e-6, 0.1 + F.normalize(codebook, dim=1) * radius


def _unit_photo() -> tuple[Tensor, Tensor]:
    x, codebook = photo(2, True, 8, 2048, 200)()
    return F.normalize(x, dim=1), F.normalize(codebook, dim=1)


_Maker = Callable[[], tuple[Tensor, Tensor]]
_SizedMaker = Callable[..., tuple[Tensor, Tensor]]

# What (x, codebook) hold, at any (N, K, D).
DATA: dict[str, _SizedMaker] = {
    "Gaussian": gaussian,
    "photo patches": _photo_of_size,
    "offset 1000": _shifted,
    "scale 1e-20": _scaled(1e-20),
    "scale 1e18": _scaled(1e18),
    "half duplicated": _half_duplicated,
    "all equal": _all_equal,
}

SEARCH: dict[str, _Maker] = {
    "gaussian": gaussian,
    "photo 2x2x3": photo(2, True, None, 2048, 200),
    "photo 2x2x3 PCA 8": photo(2, True, 8, 4096, 200),
    "photo 4x4x3 PCA 32": photo(4, True, 32, 1024, 200),
    "photo 8x8": photo(8, False, None, 1024, 200),
    "photo unit norm": _unit_photo,
    "shifted by 1000": DATA["offset 1000"],
    "scale 1e-20": DATA["scale 1e-20"],
    "scale 1e18": DATA["scale 1e18"],
    "mixed scales": _mixed_scales,
    "float32 denormals": _denormals(2.0**-149),
    "bfloat16 denormals": _denormals(2.0**-133),
    "float16 denormals": _denormals(2.0**-24),
    "largest floats": _largest_floats,
    "integer grid": _integer_grid,
    "half duplicated": DATA["half duplicated"],
    "permuted coordinates": _permuted_coordinates,
    "all equal": DATA["all equal"],
    "x on codes": _x_on_codes,
    "one cluster far away": _one_cluster_far_away,
    "far codes": _far_codes,
    "near ties": near_ties,
    "zeros": _zeros,
    "non-finite rows": _nonfinite_rows,
    "non-finite codes": _nonfinite_codes,
    "no finite code": _no_finite_code,
}


@functools.cache
def _made(name: str) -> tuple[Tensor, Tensor]:
    return SEARCH[name]()


def search(name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A copy of the named pair in ``dtype``; it is made once per process."""
    x, codebook = _made(name)
    return x.to(dtype, copy=True), codebook.to(dtype, copy=True)


_Layout = Callable[[Tensor], tuple[Tensor, int]]


def _cropped(rows: Tensor) -> tuple[Tensor, int]:
    image, _ = _nchw(rows)
    b, d, h, w = image.shape
    frame = torch.full((b + 1, d + 2, h + 3, w + 2), torch.nan, dtype=rows.dtype)
    window = frame[1:, 1:-1, 2:-1, 1:-1]
    window.copy_(image)
    return window, 1


def _nchw(rows: Tensor) -> tuple[Tensor, int]:
    return rows.reshape(2, 3, 4, -1).permute(0, 3, 1, 2).contiguous(), 1


def _channels_last(rows: Tensor) -> tuple[Tensor, int]:
    return _nchw(rows)[0].contiguous(memory_format=torch.channels_last), 1


def _every_other_channel(rows: Tensor) -> tuple[Tensor, int]:
    wide = torch.full((len(rows), 2 * rows.shape[1]), torch.nan, dtype=rows.dtype)
    wide[:, ::2] = rows
    return wide[:, ::2], 1


def _six_dims(rows: Tensor) -> tuple[Tensor, int]:
    """Row dimensions that no two of them merge."""
    return rows.reshape(2, 3, 2, 1, 2, -1).permute(2, 0, 5, 3, 1, 4).contiguous(), 2


def _permuted(rows: Tensor) -> tuple[Tensor, int]:
    return rows.reshape(2, 3, 4, -1).permute(1, 3, 2, 0), 1


# 24 rows (N, D) -> (x, channel_dim)
LAYOUTS: dict[str, _Layout] = {
    "matrix": lambda rows: (rows.contiguous(), 1),
    "transposed matrix": lambda rows: (rows.T.contiguous().T, 1),
    "channels first": lambda rows: (rows.T.contiguous(), 0),
    "every other channel": _every_other_channel,
    "NCHW": _nchw,
    "channels last": _channels_last,
    "cropped": _cropped,
    "permuted": _permuted,
    "BTD": lambda rows: (rows.reshape(2, 12, -1), -1),
    "5-D": lambda rows: (rows.reshape(2, 3, 2, 2, -1).movedim(-1, 1).contiguous(), 1),
    "six dimensions": _six_dims,
    "expanded rows": lambda rows: (rows[:6].T[None].expand(4, -1, 6), 1),
    "expanded channels": lambda rows: (rows[:, :1].expand(-1, rows.shape[1]), 1),
    "one row": lambda rows: (rows[:1], 1),
    "no rows": lambda rows: (rows[:0], 1),
    "no pixels": lambda rows: (rows.new_zeros(2, rows.shape[1], 0, 3), 1),
}


def as_matrix(x: Tensor, channel_dim: int) -> Tensor:
    """The rows of x by position, as a contiguous (N, D) copy."""
    return x.movedim(channel_dim, -1).reshape(-1, x.shape[channel_dim]).clone()


def batch(d: int = 6, k: int = 11, seed: int = 20) -> tuple[Tensor, Tensor]:
    """24 rows for ``LAYOUTS`` and a small codebook."""
    return gaussian(24, k, d, seed)


def codebooks(codebook: Tensor, levels: int) -> Tensor:
    """(L, K, D): the codebook at the scale at which residuals shrink, level by level."""
    orders = [torch.randperm(len(codebook), generator=generator(level)) for level in range(levels)]
    return torch.stack([codebook[order] * 0.5**level for level, order in enumerate(orders)])

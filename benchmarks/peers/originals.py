"""The quantizers of other libraries as models hold them: made, fed and called.

Each has the defaults of its class and starts from the given codebook, with averages that fit it,
so that nothing but the statistics of a batch moves it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Outputs = tuple[Tensor, Tensor, Tensor]

_CLUSTER_SIZE = 2.0  # no code counts as dead


@dataclasses.dataclass(frozen=True)
class Original:
    """A class of another library.

    Attributes:
        name: library and class, as tables call it.
        make: a module with a codebook (K, D), or where it has levels with (L, K, D).
        layout: rows (N, D) as the module takes them.
        call: (module, x) to (quantized, indices, loss); the indices are in the order of the rows,
            or a matrix with a one per row.
        package: the distribution; torch for a class that is written anew in
            ``tests/compat/specimens``, because its library is not on the registry.
        module: what is imported from it.
        bytes_per_pair: of its matrices with N x K entries.
        trains: whether its step is forward and backward; otherwise ``call`` encodes and decodes,
            and there is no loss.
    """

    name: str
    make: Callable[[Tensor], nn.Module]
    layout: Callable[[Tensor], Tensor]
    call: Callable[[Any, Tensor], Outputs]
    package: str
    module: str
    bytes_per_pair: int
    trains: bool = True


def _sequences(x: Tensor) -> Tensor:
    """(B, T, D) of up to 1024 positions."""
    return x.view(-1, math.gcd(len(x), 1024), x.shape[1])


def _frames(x: Tensor) -> Tensor:
    """(B, D, T)."""
    return _sequences(x).transpose(1, 2).contiguous()


def _maps(x: Tensor) -> Tensor:
    """(B, H, W, D) of up to 32 x 32 positions."""
    height = math.gcd(len(x), 32)
    return _sequences(x).unflatten(1, (height, -1))


def _images(x: Tensor) -> Tensor:
    """(B, D, H, W)."""
    return _maps(x).permute(0, 3, 1, 2).contiguous()


def _vector_quantize_pytorch(codebook: Tensor) -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    module = VectorQuantize(dim=codebook.shape[1], codebook_size=len(codebook))
    _set_average(module._codebook, codebook[None])
    return module


def _diffusers(codebook: Tensor) -> nn.Module:
    from diffusers.models.autoencoders.vae import VectorQuantizer

    module = VectorQuantizer(len(codebook), codebook.shape[1], beta=0.25)
    module.embedding.weight.data.copy_(codebook)
    return module


def _taming(codebook: Tensor) -> nn.Module:
    from compat.specimens.taming import VectorQuantizer2

    module = VectorQuantizer2(*codebook.shape, beta=0.25)
    module.embedding.weight.data.copy_(codebook)
    return module


def _vqgan_call(module: Any, z: Tensor) -> Outputs:
    quantized, loss, (_, _, indices) = module(z)
    return quantized, indices, loss


def _zalando(codebook: Tensor) -> nn.Module:
    from compat.specimens.zalando import VectorQuantizerEMA

    module = VectorQuantizerEMA(*codebook.shape, commitment_cost=0.25, decay=0.99)
    module._embedding.weight.data.copy_(codebook)
    module._ema_w.data.copy_(codebook * _CLUSTER_SIZE)
    module._ema_cluster_size.fill_(_CLUSTER_SIZE)
    return module


def _zalando_call(module: Any, z: Tensor) -> Outputs:
    loss, quantized, _, encodings = module(z)
    return quantized, encodings, loss


def _rosinality(codebook: Tensor) -> nn.Module:
    from compat.specimens.rosinality import Quantize

    module = Quantize(codebook.shape[1], len(codebook))
    _set_average(module, codebook.T)
    return module


def _rosinality_call(module: Any, z: Tensor) -> Outputs:
    quantized, loss, indices = module(z)
    return quantized, indices, loss


def _encodec(codebook: Tensor) -> nn.Module:
    from benchmarks.peers.encodec_quantization import ResidualVectorQuantizer

    levels = codebook if codebook.ndim == 3 else codebook[None]
    n_q, k, d = levels.shape
    module = ResidualVectorQuantizer(dimension=d, n_q=n_q, bins=k)
    for layer, codes in zip(module.vq.layers, levels, strict=True):
        _set_average(layer._codebook, codes)
        layer._codebook.inited.fill_(1)
    return module


def _encodec_call(module: Any, z: Tensor) -> Outputs:
    out = module(z, sample_rate=75)
    return out.quantized, out.codes.flatten(1).T, out.penalty


def _dac(codebook: Tensor) -> nn.Module:
    """Its projections change nothing: what is searched are the rows."""
    from benchmarks.peers.dac_quantization import ResidualVectorQuantize

    k, d = codebook.shape
    module = ResidualVectorQuantize(input_dim=d, n_codebooks=1, codebook_size=k, codebook_dim=d)
    level = module.quantizers[0]
    level.codebook.weight.data.copy_(codebook)
    for projection in (level.in_proj, level.out_proj):
        projection.weight_g.data.fill_(1)
        projection.weight_v.data.copy_(torch.eye(d)[:, :, None])
        projection.bias.data.zero_()
    return module


def _dac_call(module: Any, z: Tensor) -> Outputs:
    quantized, codes, _, commitment, codebook = module(z)
    return quantized, codes, commitment + codebook


def _config(codebook: Tensor) -> dict[str, Any]:
    k, d = codebook.shape
    return {"codebook_size": k, "codebook_dim": d, "hidden_size": d}


def _transformers_encodec(codebook: Tensor) -> nn.Module:
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer

    config = EncodecConfig(**_config(codebook))
    of_a_level = config.frame_rate * config.codebook_nbits / 1000
    config.target_bandwidths = [1.5 * of_a_level]
    module = EncodecResidualVectorQuantizer(config)
    level: Any = module.layers[0]
    level.codebook.embed.copy_(codebook)
    return module


def _transformers_encodec_call(module: Any, z: Tensor) -> Outputs:
    codes = module.encode(z)
    return module.decode(codes), codes, z.new_zeros(())


def _mimi(codebook: Tensor) -> nn.Module:
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiSplitResidualVectorQuantizer

    sizes = _config(codebook) | {"num_quantizers": 2, "num_semantic_quantizers": 1}
    sizes["vector_quantization_hidden_dimension"] = codebook.shape[1]
    module = MimiSplitResidualVectorQuantizer(MimiConfig(**sizes))
    level: Any = module.semantic_residual_vector_quantizer.layers[0]
    level.codebook.embed_sum.copy_(codebook)
    return module


def _mimi_call(module: Any, z: Tensor) -> Outputs:
    codes = module.encode(z, num_quantizers=1)
    return module.decode(codes.transpose(0, 1)), codes, z.new_zeros(())


def _set_average(codebook: Any, codes: Tensor) -> None:
    """Of what keeps ``embed``, ``embed_avg`` and ``cluster_size``."""
    codebook.embed.data.copy_(codes)
    codebook.embed_avg.data.copy_(codes * _CLUSTER_SIZE)
    codebook.cluster_size.data.fill_(_CLUSTER_SIZE)


ORIGINALS = (
    Original(
        "vector-quantize-pytorch VectorQuantize",
        _vector_quantize_pytorch,
        _sequences,
        lambda module, x: module(x),
        package="vector-quantize-pytorch",
        module="vector_quantize_pytorch",
        bytes_per_pair=24,
    ),
    Original(
        "diffusers VectorQuantizer",
        _diffusers,
        _images,
        _vqgan_call,
        package="diffusers",
        module="diffusers.models.autoencoders.vae",
        bytes_per_pair=4,
    ),
    Original(
        "taming VectorQuantizer2, rewritten",
        _taming,
        _images,
        _vqgan_call,
        package="torch",
        module="compat.specimens.taming",
        bytes_per_pair=12,
    ),
    Original(
        "zalando VectorQuantizerEMA, rewritten",
        _zalando,
        _images,
        _zalando_call,
        package="torch",
        module="compat.specimens.zalando",
        bytes_per_pair=12,
    ),
    Original(
        "rosinality Quantize, rewritten",
        _rosinality,
        _maps,
        _rosinality_call,
        package="torch",
        module="compat.specimens.rosinality",
        bytes_per_pair=16,
    ),
    Original(
        "encodec ResidualVectorQuantizer",
        _encodec,
        _frames,
        _encodec_call,
        package="encodec",
        module="benchmarks.peers.encodec_quantization",
        bytes_per_pair=12,
    ),
    Original(
        "descript-audio-codec ResidualVectorQuantize",
        _dac,
        _frames,
        _dac_call,
        package="descript-audio-codec",
        module="benchmarks.peers.dac_quantization",
        bytes_per_pair=8,
    ),
    Original(
        "transformers EncodecResidualVectorQuantizer",
        _transformers_encodec,
        _frames,
        _transformers_encodec_call,
        package="transformers",
        module="transformers.models.encodec.modeling_encodec",
        bytes_per_pair=8,
        trains=False,
    ),
    Original(
        "transformers MimiSplitResidualVectorQuantizer",
        _mimi,
        _frames,
        _mimi_call,
        package="transformers",
        module="transformers.models.mimi.modeling_mimi",
        bytes_per_pair=4,
        trains=False,
    ),
)


def find(name: str) -> Original:
    return next(original for original in ORIGINALS if original.name == name)

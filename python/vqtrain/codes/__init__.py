"""The code store: a data set turned into grids of codes, tied to the tokenizer that made them.

    RUN/codes/manifest.json                  what the codes are of, and the hash of every shard
    RUN/codes/train-00000.safetensors        shards of a bounded number of items each:
    RUN/codes/validation-00000.safetensors   codes.0 (top level), codes.1, ..., labels, rows and
    RUN/codes/test-00000.safetensors         draws

Codes of another tokenizer are meaningless numbers that look right, so every reader passes the
fingerprint it expects, and a file that is not the one in the manifest is refused.
"""

from vqtrain.codes.config import ExtractConfig
from vqtrain.codes.sets import CodeSet, ShardedCodes
from vqtrain.codes.shards import read_shard
from vqtrain.codes.store import CodeStore, Shard, StoreHeader, read, write, write_manifest

__all__ = [
    "CodeSet",
    "CodeStore",
    "ExtractConfig",
    "Shard",
    "ShardedCodes",
    "StoreHeader",
    "read",
    "read_shard",
    "write",
    "write_manifest",
]

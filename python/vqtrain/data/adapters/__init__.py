"""Data from outside: folders of pictures or sounds, arrays, and data sets of `datasets`."""

from vqtrain.data.adapters.folder import load_folder
from vqtrain.data.adapters.hub import load_hub
from vqtrain.data.adapters.npy import load_npy

__all__ = ["load_folder", "load_hub", "load_npy"]

"""Triton kernels, one file per op. Imported on first use only."""

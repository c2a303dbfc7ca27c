"""Train a VQ-VAE with vqkernels, train a prior on its codes, sample, account for every bit."""

"""What trainers run into with quantizers, as probes: the same ones for every library.

``python -m benchmarks.trust`` runs them all and writes benchmarks/results/trust.json, from which
docs/trust.md is made.
"""

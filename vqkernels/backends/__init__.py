"""Backends: tensors in, tensors out; no validation, no autograd, no registration.

A backend never imports another one. ``reference`` is the specification.
"""

"""Experiments: descriptions, a store that survives anything, and engines that fill it."""

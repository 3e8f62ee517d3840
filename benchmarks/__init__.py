"""Benchmarks: each prints its numbers beside their floor, measured in the same run."""

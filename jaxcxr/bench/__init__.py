"""Benchmarks of `jaxcxr bench`: what the parts of a run cost, beside the least they could cost."""

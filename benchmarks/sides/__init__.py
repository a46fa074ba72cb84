"""The sides that benchmarks compare."""

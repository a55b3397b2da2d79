"""Tests of what the benchmarks conclude from what they measured."""

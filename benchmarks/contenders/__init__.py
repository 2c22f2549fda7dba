"""The simulators that benchmarks.throughput compares, one file each."""

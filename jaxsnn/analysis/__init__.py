"""Comparing networks: latency, intervals, correlations, sensitivity, attacks."""

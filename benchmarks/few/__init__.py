"""Conversions for few timesteps, a file a method: what ``benchmarks.few_timesteps`` compares."""

"""Shared by the tests: strict types, small networks and an independent reference simulator."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "standard")

"""Shared by the tests: strict types, small networks and an independent reference simulator."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "standard")
# commands keep what they compile in the user's folder; a test must not depend on what is there
jax.config.update("jax_enable_compilation_cache", False)

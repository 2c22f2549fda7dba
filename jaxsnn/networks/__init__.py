"""Network descriptions as plain data, what they hold, and the ANN they stand for."""

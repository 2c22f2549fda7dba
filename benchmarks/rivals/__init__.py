"""The systems of the paper's tables, and newer ones, side by side: a file a system, or a family of them."""

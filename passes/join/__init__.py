"""Several networks in one graph."""

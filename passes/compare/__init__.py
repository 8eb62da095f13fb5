"""How scores of different networks become comparable."""

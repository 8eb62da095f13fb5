"""The command ``graft``."""

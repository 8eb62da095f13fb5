"""Passes: each reads a graph and returns a plan or statistics, or changes it and says what it did."""

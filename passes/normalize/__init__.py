"""Bring a graph to the form that the other passes read."""

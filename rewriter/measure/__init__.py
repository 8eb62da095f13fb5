"""Measurements of models: MACs, latency, accuracy."""

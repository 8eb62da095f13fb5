"""Figures of docs/runtimes.md and docs/deploy.md."""

SECTIONS = ("differences", "latency", "quantized")

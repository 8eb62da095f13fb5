"""Measure what the documentation reports: ``python -m benchmarks.NAME [--json FILE]``.

Run from the repository root, in an environment with Graft. The environment variable ``GRAFT_BENCH`` names the
folder of models and data, which were trained and collected by third parties.
"""

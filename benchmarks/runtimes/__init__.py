"""Figures of docs/runtimes.md and docs/deploy.md."""

"""Drafts of cards: what the graph, the files beside it and samples show of a model."""

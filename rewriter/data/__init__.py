"""Labelled samples: data sets, splits, and what a card makes of them."""

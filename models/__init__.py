"""A small trained classifier with its card and a sample of its data, for examples and tests."""

"""Shrunken linear discriminants over the last features of a classifier: a further class in closed form."""

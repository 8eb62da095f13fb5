"""The cut itself: the head of a module, slicing, and the proof that it is right."""

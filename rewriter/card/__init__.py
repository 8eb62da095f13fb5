"""Cards: how raw samples become a model's input, and what its output means."""

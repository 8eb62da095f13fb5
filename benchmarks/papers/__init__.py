"""The tables of the papers that Graft goes back to: printed, and as Graft's own methods give them."""

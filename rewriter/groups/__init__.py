"""The channel-group analysis: what can be pruned, together with what, and plans of it."""

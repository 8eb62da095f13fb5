"""What a graph is and how it may be cut, run and measured."""

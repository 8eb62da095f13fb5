"""Channel numbers: how they flow through a graph, and which of them are coupled."""

"""The way in: from a file that a framework exported to a pruned model, with no card written by hand."""

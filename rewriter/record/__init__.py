"""What is written down of a run: profiles, statistics of features, provenance, the folder of modules."""

"""Records: profiles, statistics of features, provenance, the folder of modules."""

"""Make the kept channels compute what the removed ones contributed: folding, closed-form refitting."""

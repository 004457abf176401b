"""Videos: reading and writing frames, segmenting them in order, and smoothing labels over time."""

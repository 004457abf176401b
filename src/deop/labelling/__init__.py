"""From probabilities of names and masks to a result: windows, label maps, segments, heatmaps.

NumPy only, shared by all engines; it does not depend on torch, on the networks or on where the masks come from.
"""

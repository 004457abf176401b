"""From masks and features to label maps: anchors, classification, assembly, and the two-stream baseline."""

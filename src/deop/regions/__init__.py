"""From masks and features to a label map: anchors, classification, assembly, and the two-stream baseline."""

"""Learning: losses and matching of the three stages (METHOD section 7)."""

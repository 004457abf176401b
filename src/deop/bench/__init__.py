"""How fast deop is, compared side by side in one run: what ``deop bench`` measures."""

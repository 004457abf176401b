"""Pixels and text into one space."""

"""Labelled photos: data sets as folders."""

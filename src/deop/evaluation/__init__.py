"""Evaluation of a model on a labelled folder: protocols, metrics with intervals, and a report.

It depends on the model and the data package, never on the command line.
"""

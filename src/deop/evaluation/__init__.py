"""How good a model is: metrics over whole data sets."""

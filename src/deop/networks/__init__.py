"""Modules that encoders and proposers share: trunk, position codes, mask resampling, loading of weights."""

"""Building blocks that encoders and proposals share: a trunk, position codes, mask resampling, loading of weights."""

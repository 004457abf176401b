"""Tests of the base install. They run where torch is not installed, with pytest alone, and .ci/run does so.

Where the libraries are installed, ``deop`` and ``program`` of conftest.py hide them from the process that is tested.
"""

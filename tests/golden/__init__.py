"""Golden files: what each model and engine answered when the file was written, to notice drift between releases.

``python -m tests.golden`` compares, and rewrites them. docs/promises.md describes the tolerances.
"""

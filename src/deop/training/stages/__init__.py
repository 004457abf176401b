"""The three stages of METHOD 9, each a recipe, what learns, and ``train``."""

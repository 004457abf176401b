"""The three stages of docs/method.md §9 and fine-tuning. Each module has a recipe, a task and a function ``train``."""

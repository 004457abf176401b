"""Model folders: deop's own format, the Hugging Face hub, and conversion of published checkpoints."""

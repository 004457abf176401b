"""Training recipes. Those for ``deop train`` are YAML files; nano also has code of its own."""

"""Training of the model ``nano``. The modules are run from the root of the repository; see NOTES.md."""

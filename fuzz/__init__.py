"""Fuzzing: changed files and requests of strangers, against the contract of docs/promises.md.

``python -m fuzz --help`` lists what can be chosen. A target reads one kind of input: photos, masks, lists of names,
settings, weights, graphs, archives or requests. Its seeds are the rows of the tests' own tables. atheris (libFuzzer)
changes them, guided by which lines of deop each change reaches.

The contract of one input: it is read, or refused with an error of deop; within ``TIME_LIMIT`` seconds of the processor;
in a process that stays below ``MEMORY_LIMIT``.
"""

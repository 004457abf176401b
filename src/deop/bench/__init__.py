"""How fast deop is, compared side by side in one run: what ``deop bench`` measures."""

from enum import StrEnum


class Topic(StrEnum):
    """What can be measured; docs/speed.md says what each compares. Here, so that help imports no torch."""

    stage = "stage"
    whole = "whole"
    clipseg = "clipseg"
    names = "names"
    sizes = "sizes"
    severed = "severed"
    machine = "machine"
    variants = "variants"
    stages = "stages"
    folder = "folder"
    start = "start"

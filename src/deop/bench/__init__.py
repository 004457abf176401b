"""The speed of deop, compared side by side in one run: what ``deop bench`` measures."""

from enum import StrEnum


class Topic(StrEnum):
    """What can be measured; docs/speed.md explains each. Defined here, so that the help page does not import torch."""

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
    engines = "engines"

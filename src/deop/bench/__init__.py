"""The speed of deop, compared side by side in one run: what ``deop bench`` measures."""

from enum import StrEnum


class Topic(StrEnum):
    """What can be measured; docs/speed.md explains each. Defined here, so that the help page does not import torch."""

    stage = "stage"
    whole = "whole"
    race = "race"
    clipseg = "clipseg"
    names = "names"
    sizes = "sizes"
    memory = "memory"
    severed = "severed"
    machine = "machine"
    variants = "variants"
    stages = "stages"
    folder = "folder"
    start = "start"
    engines = "engines"


SHORT = (Topic.stage, Topic.engines, Topic.stages, Topic.machine)
"""What is measured, in a short form, if no topic is given."""

MINUTES: dict[Topic, int] = {
    Topic.stage: 25,
    Topic.whole: 22,
    Topic.race: 5,
    Topic.clipseg: 12,
    Topic.names: 2,
    Topic.sizes: 3,
    Topic.memory: 5,
    Topic.severed: 3,
    Topic.machine: 1,
    Topic.variants: 4,
    Topic.stages: 1,
    Topic.folder: 4,
    Topic.start: 2,
    Topic.engines: 4,
}
"""How long each topic takes on two cores, roughly, with both towers; with ``--tower B/16`` the first two take 8."""

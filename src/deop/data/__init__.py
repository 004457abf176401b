"""Data sets as folders of photos and masks: checking, augmentation, conversion of public data sets."""

"""Many photos: reading ahead, grouping by size, writing behind."""

"""Where a model of radiographs looks, and whether that means anything."""

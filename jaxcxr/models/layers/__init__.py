"""Parts of every model: sharding, rematerialisation, positions, taps."""

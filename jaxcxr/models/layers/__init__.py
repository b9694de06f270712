"""What the layers of every model share: sharding, rematerialisation, taps."""

"""The pose data sets: one TFDS builder each."""

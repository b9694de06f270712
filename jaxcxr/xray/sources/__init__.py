"""The radiograph data sets: one TFDS builder each."""

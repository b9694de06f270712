"""Builds the radiograph data sets: a TFDS builder for each."""

"""Explains where a model of radiographs looks, and tests whether that means anything."""

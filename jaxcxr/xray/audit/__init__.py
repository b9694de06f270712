"""Finds leaks, copies and shortcuts in radiograph data sets."""

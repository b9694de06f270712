"""Leaks, copies and shortcuts in radiograph data sets."""

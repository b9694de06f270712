"""Reads radiographs from files and prepared records."""

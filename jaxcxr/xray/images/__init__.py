"""Radiographs as files, records and arrays."""

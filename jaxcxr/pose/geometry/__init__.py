"""Skeletons, joint sets and cameras."""

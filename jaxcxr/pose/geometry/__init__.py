"""Skeletons, joint sets, cameras, rotations, frame rates."""

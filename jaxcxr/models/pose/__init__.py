"""Lifters: sequences of 2D keypoints to 3D joints."""

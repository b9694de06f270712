"""Synthetic human motion: bodies, forward kinematics, ground contact, joint-angle trajectories."""

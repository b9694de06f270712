"""Drawn human motion: bodies and forward kinematics, joint-angle trajectories, ground contact."""

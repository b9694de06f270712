"""Costs of a training step: FLOPs, memory, collectives, and time at best."""

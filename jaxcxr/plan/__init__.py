"""What a training step costs: FLOPs, memory, collectives, and time at best."""

"""The trainer: one loop, one step, one state, for every task and mesh."""

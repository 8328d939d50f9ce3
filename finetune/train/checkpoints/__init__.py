"""Checkpoints, and the rules for resuming a run from them."""

"""Folds an adapter into the weights of its base model, one tensor in memory at a time, and replays the result."""

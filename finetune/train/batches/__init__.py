"""Turns examples into the tensors of a forward pass."""

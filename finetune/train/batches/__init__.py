"""From examples to the tensors of a forward pass."""

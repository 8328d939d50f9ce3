"""What an adapter has forgotten: a probe of general items that has nothing to do with its domain."""

"""The fast paths; each is tested against the plain computation that it replaces."""

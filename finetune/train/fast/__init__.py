"""Fast replacements for parts of the model, each tested against the plain computation that it replaces."""

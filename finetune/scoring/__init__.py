"""The answers of a model to the rows of a corpus, and their scores."""

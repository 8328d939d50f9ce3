"""One training in several processes, its ranks: each passes a share of every step's rows through the model."""

"""Whatever answers the rows of an evaluation: base model, adapter, baselines."""

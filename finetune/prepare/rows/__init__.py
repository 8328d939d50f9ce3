"""From a row's columns to an example."""

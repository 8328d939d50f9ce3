"""Finds the files of sources: from recipes, this machine, URLs and the Hub."""

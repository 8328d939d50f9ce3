"""Where files come from: recipes, this machine, addresses, the Hub."""

"""Where cases come from; each framework is imported by its own file only."""

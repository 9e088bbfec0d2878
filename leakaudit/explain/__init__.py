"""A rule, or the counts of one layer, explained with formulas and numbers."""

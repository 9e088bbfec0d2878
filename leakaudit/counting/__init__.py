"""Unknowns, gradient and weight constraints of a layer, and a bound on their rank."""

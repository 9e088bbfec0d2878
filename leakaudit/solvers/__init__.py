"""The ways to solve the equations of one layer, one per file; `solve` takes the one that fits."""

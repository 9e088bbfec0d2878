"""ATen programs -> Graph: export archives (.pt2) read without torch, and live modules."""

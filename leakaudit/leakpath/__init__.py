"""What follows from the shared gradients: a chain of facts from the head to the input."""

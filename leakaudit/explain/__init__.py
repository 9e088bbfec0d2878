"""What a rule means, and where the numbers of a layer come from."""

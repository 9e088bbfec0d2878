"""Which facts follow from which, by the equation of one operator."""

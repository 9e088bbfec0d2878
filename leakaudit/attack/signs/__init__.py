"""What lies above 0 and what is saturated: activation patterns, decided from recovered values."""

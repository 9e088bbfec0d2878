"""On which side of an activation's kink an output lies, decided from what is recovered."""

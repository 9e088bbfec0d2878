"""Search: the input by nonlinear least squares, from what the replay left known exactly."""

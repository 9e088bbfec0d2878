"""The linear equations of a layer: gradient and weight constraints as maps of its input."""

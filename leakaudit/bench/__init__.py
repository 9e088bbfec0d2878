"""Measurements of speed, memory and accuracy, and their committed results."""

"""Readers of model files and modules, and what they share; every one of them gives a Graph."""

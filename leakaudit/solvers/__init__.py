"""One solver per file; `solve` chooses."""

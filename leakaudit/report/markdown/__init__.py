"""The Markdown report, for job summaries and pull requests."""

"""`[tool.leakaudit]` in pyproject.toml, or leakaudit.toml: finding, reading and checking it."""

"""leakaudit: a linter that audits neural-network architectures for gradient leakage."""

__version__ = "0.1.0"

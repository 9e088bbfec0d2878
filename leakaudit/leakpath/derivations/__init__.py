"""One file per operator family."""

"""The command line: one file per command. Results go to stdout, everything else to stderr."""

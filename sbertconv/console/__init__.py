"""The command line's arguments, files and printed tables."""

"""The commands of ``tlkit``: a file for each."""

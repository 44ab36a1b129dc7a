"""Experiment trackers: scalars, options, tables and pictures of a run, sent through accelerate's trackers."""

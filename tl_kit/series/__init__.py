"""Several runs into one folder: cross-validation, members of an ensemble, and resuming."""

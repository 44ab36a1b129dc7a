"""Several runs: cross-validation, members of an ensemble, a student of one; and resuming."""

"""Export: what other programs and people open, from a checkpoint or an ensemble."""

"""Inference: from a checkpoint or an ensemble to probabilities."""

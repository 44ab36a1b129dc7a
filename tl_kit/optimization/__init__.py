"""Optimizers, learning-rate schedules, parameter groups and penalties."""

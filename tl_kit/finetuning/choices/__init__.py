"""Choices that a run measures on its images before it trains: crop mode, policy, mirror images."""

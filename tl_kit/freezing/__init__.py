"""Freezing of layers: policies, probes, train mode, audit and the frozen trunk."""

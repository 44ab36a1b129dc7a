"""Which layers train: policies, probes, train mode, audit and the frozen trunk."""

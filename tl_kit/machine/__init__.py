"""The hardware: runtime, memory, precision and threads."""

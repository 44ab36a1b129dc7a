"""Serving: a page and an HTTP interface for a checkpoint, an ensemble or an exported file."""

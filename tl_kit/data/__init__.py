"""Data sets: scan, manifest, splits, folds and the pixel store."""

"""Export: one file that other programs open, checked against what predict gives before it is kept."""

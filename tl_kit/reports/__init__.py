"""Reports for people: learning curves, the receipt's picture and its sentences."""

"""The report: one HTML file that shows what a result is worth, on which images it fails, and where it looks."""

"""Help pages and shell completion of the commands."""

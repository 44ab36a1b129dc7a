"""timm's models and their weights."""

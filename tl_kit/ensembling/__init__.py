"""Ensembles: from several checkpoints to one folder and a receipt."""

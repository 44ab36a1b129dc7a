"""Files on disk: checkpoints, saved states, the feature store, locks and atomic writing."""

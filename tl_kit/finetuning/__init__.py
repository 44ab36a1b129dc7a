"""One fine-tuning run: from a folder of images and a model's name to a checkpoint."""

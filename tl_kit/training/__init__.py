"""The training loop and what it calls; it knows no run, no file and no policy's name."""

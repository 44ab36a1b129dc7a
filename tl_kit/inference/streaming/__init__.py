"""Streams of images: paths as they come, addresses, archives; and files of rows that are written as they come."""

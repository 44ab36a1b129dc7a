"""The data doctor: it finds what is wrong with a data set."""

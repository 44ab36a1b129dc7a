"""Forms in which a data set comes: tables, archives, shards, Parquet, data sets of other programs, and addresses."""

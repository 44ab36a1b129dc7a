"""Tables of results that several commands show."""

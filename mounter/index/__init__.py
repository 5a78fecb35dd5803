"""What changed since the last walk: ``incremental`` lists that alone, ``attribution`` says which files it is due to."""

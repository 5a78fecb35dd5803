"""Where objects lie: a directory, a bucket, memory; and what keeps them from deletion."""

"""Which keys the files that we write may have: a misspelt one never reaches a cluster."""

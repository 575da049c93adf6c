"""Training and testing networks from option files, as `restore train` and `restore test` do."""

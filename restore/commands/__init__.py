"""What the commands of `restore.cli` do; nothing here prints."""

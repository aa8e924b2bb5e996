"""What to log."""

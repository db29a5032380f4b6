"""Every fault that a year brings, done to the real services."""

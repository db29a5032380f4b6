"""What measures the live services."""

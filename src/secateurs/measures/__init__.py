"""Pure functions over networks and results: quality, size, regime."""

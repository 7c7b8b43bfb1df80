"""What an index in memory or in a file is made of."""

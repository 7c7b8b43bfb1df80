"""The parts of an index in memory or in a file."""

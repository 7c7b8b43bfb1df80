"""What is measured, and the plain ways that it is measured against: python -m benchmarks."""

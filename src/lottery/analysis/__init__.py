"""What the results say: the verdict and the table."""

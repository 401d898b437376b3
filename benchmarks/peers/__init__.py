"""What the comparison with other systems needs: a model and pictures for all, and a way to measure processes."""

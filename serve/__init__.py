"""What you deploy: search over HTTP on Ray Serve."""

"""What you measure: how good the search is."""

"""Jobs to submit to Ray: embed, build_index, train."""

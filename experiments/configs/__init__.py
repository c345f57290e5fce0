"""Each file is one experiment: `get_config()` returns its ml_collections.ConfigDict."""

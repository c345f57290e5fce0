"""Programs: absl flags say where, a config file says what."""

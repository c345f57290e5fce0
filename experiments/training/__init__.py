"""A training run: options, devices, epochs, and the files that it keeps beside its weights."""

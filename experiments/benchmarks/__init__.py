"""Benchmarks of reading training data, training and separation, for this project and others."""

"""Builds the free training set: sources, sung speech, tracks and their checksums."""

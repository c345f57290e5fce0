"""From recordings to files of stems: shared by separate, client and catalogue."""

"""From audio files of any format to WAVs to train on: shared by prepare and catalogue."""

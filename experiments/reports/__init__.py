"""Tables and pictures from the JSON files that the programs write."""

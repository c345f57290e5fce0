"""Tables and pictures, made from the JSON files that the programs write."""

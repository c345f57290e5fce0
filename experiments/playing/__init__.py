"""The stem player: a server on this machine, and its page in static/."""

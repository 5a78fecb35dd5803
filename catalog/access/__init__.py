"""Users, tokens, sessions, and what waits for a second pair of eyes: a durable database of its own, never made again."""

"""Real processes on a real server, killed, stopped and cut off at seeded moments; a history, and a checker of it."""

"""The training model: its step, what it reports, and its schedules."""

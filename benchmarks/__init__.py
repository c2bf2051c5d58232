"""What measures and shows: the demo, load, reports."""

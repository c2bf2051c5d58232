"""The HTML report of a benchmark, and its plots, from the object that it printed."""

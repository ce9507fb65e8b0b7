"""A recorded trial that is run again: its record, its metrics by name, and their comparison."""

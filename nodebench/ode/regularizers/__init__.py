"""What training adds to a loss to make ODEs easy to solve: a module each, and their table."""

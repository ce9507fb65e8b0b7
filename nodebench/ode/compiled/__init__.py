"""What compiles functions for the CPU, keeps them, and runs them in threads."""

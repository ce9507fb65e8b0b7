"""What may be learned: a module for each kind of task, and the table of them."""

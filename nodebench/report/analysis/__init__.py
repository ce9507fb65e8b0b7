"""What a report says, as frames and statistics: nothing here is drawn or written."""

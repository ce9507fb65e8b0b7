"""What a report says, as frames, statistics and judgements; nothing is drawn or written here."""

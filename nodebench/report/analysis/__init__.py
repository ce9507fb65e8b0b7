"""The content of a report: frames, statistics and judgements. Nothing is drawn here."""

"""Judge lists of candidates: the protocol of votes, and statistics on the judge."""

"""Everything that is paid: teachers behind one journal, which never buys the same answer twice."""

"""The machinery that every journaled teacher shares: requests, pace, budget, transport."""

"""Generation for a whole stage: requests in, texts out, through transformers or vLLM."""

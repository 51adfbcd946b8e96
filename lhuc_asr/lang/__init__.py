"""Words, phones, pronunciations and n-gram language models."""

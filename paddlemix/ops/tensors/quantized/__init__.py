"""Linear layers of quantised weights."""

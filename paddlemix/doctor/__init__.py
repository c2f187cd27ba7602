"""What of this machine a run will use, and what to do where something is missing: `python -m paddlemix.doctor`."""

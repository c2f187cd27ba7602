"""What an optimizer's step computes, for all its parameters at once."""

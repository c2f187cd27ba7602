"""How much memory a training run will take on each card, computed from the shapes of model and batch."""

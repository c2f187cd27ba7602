"""What an adapter makes of its base's weights, tensor by tensor."""

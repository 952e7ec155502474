"""How a plan reaches the model: indices and weights inside the batch, the sampler, several processes."""

"""What happens to logits on their way to a token. `pagoda_engine.model.sampler` does it in order."""

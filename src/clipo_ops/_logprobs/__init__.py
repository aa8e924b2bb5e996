"""Log-probabilities, entropies and KL estimates."""

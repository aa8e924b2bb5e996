"""Hand-written gradients and tiles: each saves memory or a factor of two, and has a plain twin in the tests."""

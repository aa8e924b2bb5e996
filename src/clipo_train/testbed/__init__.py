"""A task small enough for a laptop, in which every step of the reasoning can be checked."""

"""The papers' recipes: a surrogate and its aggregation."""

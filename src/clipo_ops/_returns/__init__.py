"""Rewards per token or step to advantages per token or step."""

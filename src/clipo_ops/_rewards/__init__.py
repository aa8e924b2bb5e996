"""Rewards per rollout and per token."""

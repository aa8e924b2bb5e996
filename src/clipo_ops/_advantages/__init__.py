"""Rewards to one advantage per rollout: an estimator per function."""

"""Contrastive losses and their objectives."""

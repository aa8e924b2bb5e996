"""Stands in for flash-attn, which has no build for a CPU; of what OpenRLHF imports, transformers has its own copies."""

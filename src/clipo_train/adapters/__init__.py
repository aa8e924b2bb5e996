"""CLIPO inside other people's trainers: each module renames and reshapes, and leaves the algorithm where it is."""

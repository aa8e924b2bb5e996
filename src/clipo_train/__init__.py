"""The reference trainer: GRPO+CLIPO on Accelerate. Import its modules; this package itself imports nothing."""

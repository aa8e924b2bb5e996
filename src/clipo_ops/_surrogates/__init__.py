"""Policy objectives per token, unreduced and with the sign to minimise."""

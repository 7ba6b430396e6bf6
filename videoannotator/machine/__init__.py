"""What this machine has, and what is taken of it."""

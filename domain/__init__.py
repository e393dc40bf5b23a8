"""What Kassa knows. Nothing here imports Flask."""

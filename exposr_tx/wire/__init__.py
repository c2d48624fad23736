"""exposr_tx."""

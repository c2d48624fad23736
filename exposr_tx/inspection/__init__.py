"""What passes between a tunnel and its target, as exchanges, for its user to see."""

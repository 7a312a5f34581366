"""Training: what runs the steps of one net, and of a stack of nets."""

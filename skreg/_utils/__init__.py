"""What knows nothing of nets: rules for parameters."""

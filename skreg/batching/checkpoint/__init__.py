"""Checkpoints: results of tasks on disk, found again by what they depend on."""

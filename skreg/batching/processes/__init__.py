"""Stacks that train in several processes: how they travel, and who gets which."""

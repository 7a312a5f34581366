"""Stacks: nets of one shape that train as one."""

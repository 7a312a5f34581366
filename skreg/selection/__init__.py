"""How strong, how fast: tools that choose the settings of a net."""

from skreg.selection._lr_range_test import RangeTest, lr_range_test

__all__ = ["RangeTest", "lr_range_test"]

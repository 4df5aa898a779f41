"""Mingluo (鸣锣): from an official warning to every affected village, reached and proven.

Read one warning's way in this order: `intake`, `planner`, `relay`, `sender`, `receipts`.
"""

__version__ = "0.1.0"

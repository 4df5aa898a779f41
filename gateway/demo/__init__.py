"""The main job on one machine: a warning from CAP to every village, with counterparts that keep their own logs."""

from gateway.demo.run import run_demo

__all__ = ["run_demo"]

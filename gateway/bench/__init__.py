"""Measurements of one machine: intake, the way to the first loudspeaker, HTTP SMS, fan-out without a network.

`mingluo bench` runs them, the demonstration their short versions. Everything that is measured runs in a process of
its own, over loopback and with invented people; only figures of one run are worth comparing with each other.
"""

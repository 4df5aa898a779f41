"""The loudspeaker's side of docs/device-protocol.md.

`player` decides what sounds, without time, sound, network or disk of its own; `mingluo device` (`program`) gives it
those of a small Linux box, and `gateway.simulate.speaker` gives a whole fleet a log in place of sound.
"""

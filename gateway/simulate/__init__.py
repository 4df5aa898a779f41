"""Counterparts of the channels: carriers, platforms, devices and push services that never reach a real person.

Each is written from the protocol's public documentation, never from our client, and imports no channel: an
installation is proven and load-tested against them without one real message.
"""

"""Texts: from an alert and an audience to the words that leave, per channel and language.

`Renderer` is the door; the tools for lengths and segments serve carriers' codecs and the preview as well.
"""

from gateway.render.lint import Finding
from gateway.render.renderer import Rendered, Renderer
from gateway.render.speech import hanzi, spoken
from gateway.render.text import clean, segment_count, segments, utf16_units

__all__ = ["Finding", "Rendered", "Renderer", "clean", "hanzi", "segment_count", "segments", "spoken", "utf16_units"]

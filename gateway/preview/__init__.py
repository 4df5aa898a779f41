"""What would happen if this message were issued: whom it reaches, in which words, when, and what stands against it.

Called by the API and the command line. Uses the code of the real run (intake, directory, planner's cut, composer),
so that a preview cannot promise another text than the one that leaves. Nothing is stored and nobody is told.
"""

from gateway.preview.audience import reach
from gateway.preview.preview import concerning, halts, preview, scope_name
from gateway.preview.shape import EVERYTHING, Finding, Preview, Words, split_reasons
from gateway.preview.words import gathered, text_findings, texts_of

__all__ = [
    "EVERYTHING", "Finding", "Preview", "Words", "concerning", "gathered", "halts", "preview", "reach", "scope_name",
    "split_reasons", "text_findings", "texts_of",
]  # fmt: skip

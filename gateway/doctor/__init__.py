"""Is this installation sound? Pure checks; each verdict says what was found and what to do.

Called by `mingluo doctor`, which gathers the facts (files, database, broker, channels) and prints the verdicts.
An error means that a village would not be reached, or somebody could do what they must not. A warning is worth a
person's look. Nothing here opens, changes or sends anything, and no verdict holds a name, a number or a secret.
"""

from gateway.doctor.installation import certificates, channel_certificates, device_keys, policy, regions, settings
from gateway.doctor.readiness import drills, rosters, safety
from gateway.doctor.road import channels, reserves
from gateway.doctor.verdict import Facts, Severity, Verdict, nothing
from gateway.doctor.wording import templates

__all__ = [
    "Facts", "Severity", "Verdict", "certificates", "channel_certificates", "channels", "device_keys", "drills",
    "nothing", "policy", "regions", "reserves", "rosters", "safety", "settings", "templates",
]  # fmt: skip

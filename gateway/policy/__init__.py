"""Policy as data: authority, tokens, green channel, channel plan, quiet hours and defaults.

`Policy.load(folder)` reads `config/policy/`; the answers are pure functions of its tables.
"""

from gateway.policy.policy import Policy, Principal
from gateway.policy.route import Route, Succession
from gateway.policy.table import Hazard, Issuer, PlanRow

__all__ = ["Hazard", "Issuer", "PlanRow", "Policy", "Principal", "Route", "Succession"]

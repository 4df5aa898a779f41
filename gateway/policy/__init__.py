"""Policy as data: hazards and their levels, documents, authority, green channel, plan, quiet hours and defaults.

`Policy.load(folder)` reads `config/policy/`; the answers are pure functions of its tables.
"""

from gateway.policy.authority import Authority
from gateway.policy.explanation import Explanation, explain
from gateway.policy.policy import Policy, Principal
from gateway.policy.route import Route, Succession
from gateway.policy.table import Hazard, Issuer, PlanRow
from gateway.policy.wording import ForbiddenRow, LintFile

__all__ = [
    "Authority", "Explanation", "ForbiddenRow", "Hazard", "Issuer", "LintFile", "PlanRow", "Policy", "Principal",
    "Route", "Succession", "explain",
]  # fmt: skip

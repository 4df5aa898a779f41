"""Routes of drafts, decisions and the duty room, as data; `table` joins them to the others."""

from __future__ import annotations

from gateway import cap
from gateway.api import decisions, duty
from gateway.api.duty_shape import (
    AnswerIn,
    ApprovalIn,
    ConsultationIn,
    Decisions,
    EmergencyIn,
    JoinIn,
    Minutes,
    Noted,
    ObligationOut,
    Obligations,
    ObligationsQuery,
    RegimeOut,
    RegimesOut,
    RenewIn,
    SealIn,
    SealOut,
    Seals,
    TelephoneIn,
)
from gateway.api.endpoint import Endpoint
from gateway.api.shape import Accepted, ReasonIn, Standing
from gateway.policy.table import WRITERS

CLERKS = WRITERS | {"clerk"}
DECIDERS = frozenset({"reviewer", "signer"})
ADMINS = frozenset({"admin"})

DUTY: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/v1/alerts/draft", "saveDraft",
        "Keep a message as a draft: checked as if it were issued, sent to nobody.",
        decisions.save_draft, {200: Accepted}, (409, 422), roles=WRITERS, body=cap.AlertIn,
    ),
    Endpoint(
        "PUT", "/v1/alerts/{id}", "amendDraft",
        "Store another wording of a draft, or of what was returned. Sender and identifier stay; its id may change.",
        decisions.amend, {200: Accepted}, (404, 409, 422), roles=WRITERS, body=cap.AlertIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/submit", "submitDraft",
        "Hand a draft on: it takes the way its route says now.",
        decisions.submit, {202: Accepted}, (404, 409, 422), roles=WRITERS, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/return", "returnAlert", "Give a waiting alert back to its writer, with a reason.",
        decisions.return_, {200: Standing}, (404, 409), roles=DECIDERS, body=ReasonIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/withdraw", "withdrawAlert", "Take back what you have written and nobody has sent.",
        decisions.withdraw, {200: Standing}, (404, 409), roles=WRITERS, body=ReasonIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/release", "releaseAlert",
        "Let a near-duplicate go out all the same; it takes the stages its route asks for.",
        decisions.release, {200: Accepted}, (404, 409), roles=WRITERS, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/authorise", "authoriseAlert",
        "Write down a telephone authorisation (电话授权): it counts as the second person, and a signer countersigns.",
        decisions.authorise, {200: Accepted}, (404, 409, 422), roles=CLERKS, body=TelephoneIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/join", "joinAlert",
        "Agree to a joint warning as its partner, or write down that the partner agreed by telephone.",
        decisions.join, {200: Accepted}, (404, 409, 422), roles=CLERKS, body=JoinIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/alone", "publishAlone",
        "Publish a joint warning under your own name, once the partner has been waited for.",
        decisions.alone, {200: Accepted}, (404, 409), roles=frozenset({"signer"}), conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/area-approval", "addAreaApproval",
        "Add the approval number (审批号) that the area request of an active alert waits for: that request alone goes "
        "out. The same number again answers the same; another one is refused.",
        decisions.number, {200: Accepted}, (404, 409, 422), roles=frozenset({"signer"}), body=ApprovalIn,
        conditional=True,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/decisions", "listDecisions", "The life of an alert: who decided what, and when.",
        decisions.decisions, {200: Decisions}, (404,),
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/consultation", "noteConsultation",
        "Keep a consultation (会商) with an alert: who, when, what was concluded.",
        decisions.consult, {200: Noted}, (404,), roles=CLERKS, body=ConsultationIn,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/minutes", "listMinutes",
        "Telephone authorisations and consultations with their names, for the issuing body's own people. That you "
        "looked stands in the audit chain.",
        decisions.minutes, {200: Minutes}, (404,), roles=WRITERS,
    ),
    Endpoint(
        "GET", "/v1/obligations", "listObligations", "What the duty room owes in your area, by due time.",
        duty.obligations, {200: Obligations}, query=ObligationsQuery,
    ),
    Endpoint(
        "POST", "/v1/obligations/{id}/{kind}", "answerObligation",
        "Answer an obligation of an alert or an emergency regime.",
        duty.answer, {200: ObligationOut}, (404, 409, 422), roles=CLERKS, body=AnswerIn,
    ),
    Endpoint(
        "GET", "/v1/emergency", "listEmergencies", "Emergency regimes, newest first.",
        duty.emergencies, {200: RegimesOut},
    ),
    Endpoint(
        "POST", "/v1/emergency", "startEmergency",
        "Start the emergency regime (紧急发布) for some hours: red, and response Ⅱ and Ⅰ, leave at once by every road.",
        duty.start_emergency, {200: RegimeOut}, (409, 422), roles=CLERKS, body=EmergencyIn, limited=False,
    ),
    Endpoint(
        "POST", "/v1/emergency/{id}/renew", "renewEmergency", "Prolong the emergency regime from now.",
        duty.renew_emergency, {200: RegimeOut}, (404, 409, 422), roles=CLERKS, body=RenewIn, limited=False,
    ),
    Endpoint(
        "POST", "/v1/emergency/{id}/end", "endEmergency", "End the emergency regime before its time.",
        duty.end_emergency, {200: RegimeOut}, (404, 409), roles=frozenset({"signer"}), limited=False,
    ),
    Endpoint(
        "POST", "/v1/break-glass", "breakGlass",
        "Issue one message under a sealed code (header Break-Glass), past every stage. It alarms the leader.",
        duty.break_glass, {200: Accepted, 202: Accepted}, (403, 409, 422, 429, 503), access="open", body=cap.AlertIn,
    ),
    Endpoint(
        "GET", "/v1/break-glass/codes", "listSealedCodes", "Sealed codes without the codes: used, and still sealed.",
        duty.codes, {200: Seals}, roles=ADMINS,
    ),
    Endpoint(
        "POST", "/v1/break-glass/codes", "sealCode", "Make a sealed one-time code. It is shown this once.",
        duty.new_code, {200: SealOut}, (422,), roles=ADMINS, body=SealIn, kept=False,
    ),
)  # fmt: skip

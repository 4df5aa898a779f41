"""Every route of the API, as data. The router and /openapi.json are both made from `ENDPOINTS`."""

from __future__ import annotations

from functools import cache

from gateway import cap
from gateway.api import alerts, system
from gateway.api.drill import DRILLS
from gateway.api.duty_table import DUTY
from gateway.api.endpoint import JSON, Answer, Call, Endpoint
from gateway.api.national import NATIONAL
from gateway.api.openapi import document
from gateway.api.person import HISTORY
from gateway.api.reply import REPLIES
from gateway.api.right import RIGHTS
from gateway.api.shape import (
    Accepted,
    AlertOut,
    AlertsPage,
    AlertsQuery,
    AuditPage,
    AuditQuery,
    AuditVerdict,
    CheckpointOut,
    ConfirmationIn,
    Confirmations,
    Confirmed,
    DeliveriesPage,
    DeliveriesQuery,
    HaltIn,
    Halts,
    Health,
    NoteIn,
    ReasonIn,
    Standing,
    StuckOut,
    Texts,
    VerifyQuery,
)
from gateway.api.speaker import SPEAKERS
from gateway.policy.table import WRITERS
from gateway.preview import Preview
from gateway.report import Status

CLERKS = WRITERS | {"clerk"}
ADMINS = frozenset({"admin"})
HALTERS = frozenset({"issuer", "signer", "admin"})
PEM = "application/pem-certificate-chain"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


async def openapi(_call: Call) -> Answer:
    """The description of this table."""
    return 200, _document()


@cache
def _document() -> bytes:
    return document(ENDPOINTS)


ENDPOINTS: tuple[Endpoint, ...] = (
    *DUTY,
    *REPLIES,
    *DRILLS,
    *NATIONAL,
    *HISTORY,
    *RIGHTS,
    *SPEAKERS,
    Endpoint(
        "POST", "/v1/alerts", "submitAlert",
        "Issue a warning: CAP 1.2, JSON, or the national dialect (application/xml). 202 means that it is durable and "
        "under way, or held for a second person; 200 that exactly this message was known already. A repeated request "
        "is harmless: sender and identifier make it one.",
        alerts.submit, {200: Accepted, 202: Accepted}, (409, 422), roles=WRITERS, body=cap.AlertIn,
    ),
    Endpoint(
        "POST", "/v1/alerts/preview", "previewAlert",
        "Say what issuing this would do: places, recipients, texts, route, holds, deferrals. Nothing is stored.",
        alerts.show_preview, {200: Preview}, (422,), roles=WRITERS, body=cap.AlertIn, kept=False,
    ),
    Endpoint(
        "GET", "/v1/alerts", "listAlerts",
        "List the alerts of your area, newest first. A short page need not be the last: go on while there is `next`.",
        alerts.list_alerts, {200: AlertsPage}, query=AlertsQuery,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}", "getAlert", "One alert and how it was decided.",
        alerts.show, {200: AlertOut}, (404,), tagged=True,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/texts", "getAlertTexts",
        "The texts of an alert as they leave, and what lint finds in them: what a signer reads before signing.",
        alerts.show_texts, {200: Texts}, (404,),
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/cap", "getAlertCap", "One alert as CAP 1.2 XML, signed where the gateway has a key.",
        alerts.show_cap, {200: "application/cap+xml"}, (404,), tagged=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/approve", "approveAlert",
        "Let what waits of an alert go out. Nobody approves their own.",
        alerts.approve, {200: Accepted}, (404, 409, 422), roles=WRITERS, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/reject", "rejectAlert", "End a held alert without sending it.",
        alerts.reject, {200: Standing}, (404, 409), roles=WRITERS, body=ReasonIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/recall", "recallAlert",
        "Stop an alert at once: nothing more leaves. What has left needs a correction. Repeating it is harmless.",
        alerts.recall, {200: Standing}, (404,), roles=WRITERS, body=ReasonIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/cancel", "cancelAlert",
        "Send the all-clear (解除) to everyone who was warned; it waits for a second person.",
        alerts.cancel, {200: Accepted, 202: Accepted}, (404, 409), roles=WRITERS, body=NoteIn, conditional=True,
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/correct", "correctAlert",
        "Revoke a mistake (更正) to everyone who was told: a signer's at once, another's once it is signed.",
        alerts.correct, {200: Accepted, 202: Accepted}, (404, 409), roles=WRITERS, body=NoteIn, conditional=True,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/status", "getAlertStatus",
        "What was sent and how fast, and which villages are reached, with the gaps by name.",
        alerts.show_status, {200: Status}, (404,), tagged=True,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/deliveries", "listDeliveries",
        "Where each recipient stands, by opaque id. There is no way to an address here.",
        alerts.deliveries, {200: DeliveriesPage}, (404,), query=DeliveriesQuery,
    ),
    Endpoint(
        "GET", "/v1/alerts/{id}/confirmations", "listConfirmations", "Who answered for which villages.",
        alerts.confirmations, {200: Confirmations}, (404,),
    ),
    Endpoint(
        "POST", "/v1/alerts/{id}/confirmations", "confirmAlert",
        "Write down that an official, or somebody answerable for a village, answered you by phone, at the door or by "
        "radio (叫应). A village can be confirmed whether or not anything was sent to its officials.",
        alerts.confirm, {200: Confirmed}, (404, 409, 422), roles=CLERKS, body=ConfirmationIn,
    ),
    Endpoint(
        "GET", "/v1/stuck", "listStuck",
        "What has no outcome yet, and why: halted, waiting for a carrier, a broker, a worker, a retry. Loudspeakers "
        "are not in it; the status of an alert names their villages.",
        alerts.stuck, {200: StuckOut},
    ),
    Endpoint(
        "POST", "/v1/halt", "halt",
        "Stop or release all sending of a county, a channel or everything. Issuers halt counties of their own.",
        system.halt, {200: Halts}, (422,), roles=HALTERS, body=HaltIn, limited=False,
    ),
    Endpoint(
        "GET", "/v1/audit", "listAudit", "The chain of decisions.",
        system.audit, {200: AuditPage}, roles=ADMINS, query=AuditQuery,
    ),
    Endpoint(
        "GET", "/v1/audit/verify", "verifyAudit",
        "Walk the whole chain and say whether it is unbroken, and still holds the checkpoint given.",
        system.verify, {200: AuditVerdict}, roles=ADMINS, query=VerifyQuery,
    ),
    Endpoint(
        "GET", "/v1/audit/checkpoint", "getAuditCheckpoint",
        "Where the chain stands now. Kept elsewhere, it proves later that nothing up to here was rewritten or cut off.",
        system.checkpoint, {200: CheckpointOut}, roles=ADMINS,
    ),
    Endpoint(
        "GET", "/v1/certificates", "listCertificates",
        "Certificates of the CAP messages published here: present, coming and past ones, the youngest first. Compare "
        "the fingerprint by phone before you pin one.",
        system.certificates, {200: PEM}, access="open",
    ),
    Endpoint(
        "GET", "/v1/health", "health", "What works. 503 while no warning can be taken in.",
        system.health, {200: Health, 503: Health}, access="open",
    ),
    Endpoint(
        "GET", "/metrics", "metrics", "Metrics for Prometheus; callers from other machines need a token.",
        system.expose, {200: METRICS}, access="loopback",
    ),
    Endpoint(
        "GET", "/openapi.json", "openapi", "This description, as OpenAPI 3.1.",
        openapi, {200: JSON}, access="open", tagged=True,
    ),
)  # fmt: skip

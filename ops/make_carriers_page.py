"""Write docs/carriers.md: how to get an account with a carrier working, and every code, from the tables the code obeys.

Run `python ops/make_carriers_page.py` after a change to a table of codes in `channels/` or to the text below; a test
compares the committed file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from channels import _cmpp_code as cmpp
from channels import _sgip_code as sgip
from channels import _smgp_code as smgp
from channels import _smpp_code as smpp
from channels._meaning import Blame, Decision, Meaning

TARGET = Path(__file__).parent.parent / "docs" / "carriers.md"

ANSWER = {
    Decision.DONE: "submitted; the report decides",
    Decision.WAIT: "nothing yet",
    Decision.TEMPORARY: "another account, or later again",
    Decision.THROTTLED: "slower; no attempt is counted",
    Decision.PERMANENT: "failed: the next channel",
    Decision.UNUSABLE: "account set aside for 30 s; an alarm when there is no other",
    Decision.UNKNOWN: "unknown: never blindly again",
}
"""What the gateway does about the answer to a login or a submit."""

REPORT = dict.fromkeys(Decision, "failed") | {
    Decision.DONE: "delivered",
    Decision.WAIT: "nothing yet",
    Decision.UNKNOWN: "unknown",
}
"""What a report makes of a recipient."""

PAGE = """# SMS through the carriers: getting an account to work

Written by `ops/make_carriers_page.py`; the codes at the end are the tables the gateway obeys. One channel per protocol:

| carrier | channel | protocol | numbers in one submit | reports and replies come |
| --- | --- | --- | --- | --- |
| China Mobile 中国移动 | `sms_cmpp` | CMPP 3.0 or 2.0 | 99 | over our connections |
| China Unicom 中国联通 | `sms_sgip` | SGIP 1.2 | 100 | over connections the gateway makes to us |
| China Telecom 中国电信 | `sms_smgp` | SMGP 3.0.3 | 100 | over our connections |
| aggregators | `sms_smpp` | SMPP 3.4 | 1 | over our connections |

## What to ask every carrier for

1. **Port (接入号)** that officials and residents will see, and whether digits may be put behind it: replies are matched
   by those digits. Field `src_id`.
2. **Name and secret** of the account, and the gateway's **address and port**. Give the carrier the addresses you call
   from, every hub's: from any other one the login fails, mostly with the code of a wrong secret.
3. **Limits**: connections of the account (`connections`), unanswered submits per connection (`window`), messages a
   second (`[rates]`; long texts count once per part and number), numbers in one submit (one only: `bulk = false`).
4. **Signature (签名)**: registered for your unit, for this port, with this carrier: the others do not know it. It takes
   7 to 10 working days, and nothing is delivered before.
5. **Delivery reports (状态报告)** switched on for all messages, and what their ids are: `bulk_ids`, `ids`.
6. **Public-interest exemption**: no frequency limit and no content review for warnings. Otherwise the same text within
   minutes (00140), the fifth in an hour (00141) and the eleventh in a day (00142) to one number are refused.
7. **Replies (上行)** for the port, and what a long reply looks like.
8. A clock: logins of CMPP and SMGP carry the time. A clock that is minutes off is refused as a wrong secret.

## Fields of every account

`config/channels.toml`; a table `[[sms_….account]]` for each account, and above it `[sms_…]` with `carriers`: whose
numbers the channel serves (`mobile`, `unicom`, `telecom`, `broadcast`); none: any number.

| field | default | meaning |
| --- | --- | --- |
| `name` | – | yours: part of references and of the rate's name. Never change it while reports are owed |
| `host`, `port` | –, the protocol's | the gateway |
| `secret` | – | always `"env:NAME"` |
| `src_id` | – | our port |
| `extension` | 0 | digits behind `src_id` that name the alert, as the contract allows: see *Replies* below |
| `service_id` | `""` | 业务代码, as the carrier wrote it into the contract |
| `connections` | 1 | of all processes together; with two or more, one is kept for green |
| `window` | 16 | unanswered submits per connection; of a single connection a quarter is kept for green |
| `weight` | 1 | share among a carrier's accounts; failures and slowness lower it by themselves |
| `bulk` | true | several numbers in one submit |
| `connect_s`, `answer_s` | 5, 20 | wait for a login, for an answer; without an answer recipients are in doubt |
| `heartbeat_s` | 180 (SMPP 60) | silence after which the carrier is asked whether it is there; SGIP has none |
| `retry_s` | 1 | first wait before connecting again; doubles up to a minute. After a refused login 30 times as much |

What an account allows stands in `[rates]` under `"channel/account"`, and is shared by all processes over Redis:

```toml
[rates]
"sms_cmpp/county" = {{ per_s = 300, burst = 300, green = 100 }}
```

A slice (99 recipients with CMPP, 100 elsewhere) takes all of its tokens at once, whatever `bulk` says. Hence two rules
(`mingluo doctor` checks them):

- `green` (the reserve) ≥ one slice. What other lanes leave of the bucket is the reserve; with less than a slice in it
  the first of the officials wait for tokens right behind a bulk slice.
- `burst` ≥ one slice + `green`. Other lanes take their tokens from above the reserve. A slice that never fits there
  waits for a full bucket and takes the reserve with it, or it would wait for ever: green finds nothing kept.

### Replies

Without an extension all texts come from one number, and an official's "1" confirms every live alert he was told of that
day. With `extension = 2` each version is sent from a number of its own, `src_id` and two digits made from its id, and a
"1" sent to it confirms that version and no other. What is sent to digits that name none of them counts as without.

## China Mobile: CMPP

Ask for: SP id (企业代码, six characters), service id, port, secret, version.

```toml
[sms_cmpp]
carriers = ["mobile", "broadcast"]

[[sms_cmpp.account]]
name = "county"
host = "127.0.0.1"              # the carrier's gateway
port = 7890
source_addr = "901234"          # SP id
secret = "env:CMPP_SECRET"
src_id = "10690001"
service_id = "YJXX"
version = "3.0"                 # "2.0" where a login with 3.0 is refused with 4 or 1
bulk_ids = "counted"
connections = 2
```

- `bulk_ids`: the answer to a bulk submit names one id. `"counted"`: recipient n is reported under that id + n, as most
  gateways do. `"one"`: all are reported under that very id, and told apart by number. Set to `"one"` where the gateway
  counts, all reports of a bulk but the first stay unmatched (`mingluo_unmatched_reports` rises). Set to `"counted"`
  where it does not, the first of each bulk is delivered, all others stay submitted and end as unknown. Try it with one
  bulk to three telephones before anything else; with single submits (`bulk = false`) it does not matter.
- `check_answer = false` where a gateway cannot prove that it knows the secret (code `not_genuine`). Ask first: it may
  not be the carrier.

Test: `mingluo simulate carrier --protocol cmpp30 --account 901234:secret --source 10690001 --connections 2`, with
`CMPP_SECRET=secret`; for the other kind of ids add `--set bulk_ids=one`.

## China Unicom: SGIP

Ask for: company code (企业代码, five digits), area code of the node (电话区号), login name and secret for our logins,
port; and from which addresses, with which name and secret, **their gateway calls us**. Tell them where: your address
and port.

```toml
[sms_sgip]
carriers = ["unicom"]

[sms_sgip.listener]
host = "127.0.0.1"              # where the gateway reaches this machine
port = 8802
allow = ["127.0.0.1/32"]        # the gateway's addresses; nobody else is heard

[[sms_sgip.account]]
name = "county"
host = "127.0.0.1"
port = 8801
login_name = "mingluo"
secret = "env:SGIP_SECRET"
area_code = "0396"
corp_id = "12345"               # node id = 3, area code, company code
src_id = "10690001"
```

- `called_name`, `called_secret`: what the gateway says when it calls us, where that is not what we say to it.
- There is no heartbeat. We leave after `idle_s` (30) without work; the channel counts as up all the same.
- Submits work and no report ever comes: the listener cannot be reached. Look at firewall and address translation, then
  at `allow`. Of several processes on one machine one listens.

Test: `mingluo simulate carrier --protocol sgip --account mingluo:secret --listener 127.0.0.1:8802`, with
`SGIP_SECRET=secret`.

## China Telecom: SMGP

Ask for: client id (企业代码, up to eight characters), service id, port, secret.

```toml
[sms_smgp]
carriers = ["telecom"]

[[sms_smgp.account]]
name = "county"
host = "127.0.0.1"
port = 8890
client_id = "901234"
secret = "env:SMGP_SECRET"
src_id = "10690001"
service_id = "YJXX"
```

- Reports of a bulk have one id, and are told apart by number: nothing is to be set.
- `check_answer` as with China Mobile.

Test: `mingluo simulate carrier --protocol smgp --account 901234:secret`, with `SMGP_SECRET=secret`.

## Aggregators: SMPP

Ask for: system id, password (up to eight characters), system type, source address with its type (TON) and plan (NPI),
whether numbers are wanted with 86, whether transceivers are allowed, and **in which base ids are written** in answers
and in receipts.

```toml
[[sms_smpp.account]]
name = "aggregator"
host = "127.0.0.1"
port = 2775
system_id = "mingluo"
secret = "env:SMPP_SECRET"
src_id = "10690001"
system_type = ""
source_ton = 0                  # 0 unknown, 1 international, 3 network's own, 5 letters
source_npi = 1
international = true            # 86 before the number, TON 1; false: eleven digits, TON 0
ids = "same"
```

- `ids`: `"hex_decimal"` where the answer says `12A7` and the receipt's text 4775; `"decimal_hex"` the other way round.
  Wrong, no receipt is matched at all. Where receipts have the parameter `receipted_message_id`, it needs no setting.
- `service_id` is service_type, up to five characters.
- Only transceivers; receipts and replies as `deliver_sm`. Replies have no id in SMPP: one that is sent twice, because
  the connection ended before our answer arrived, counts twice.

Test: `mingluo simulate carrier --protocol smpp --account mingluo:secret`, with `SMPP_SECRET=secret`.

## Trying an account

1. Against the simulated carrier on this machine, with the command of its section and the table as it stands there:
   `mingluo serve` in a second shell. The simulator's log has `login` with code 0 (SGIP: with the first submit);
   `mingluo doctor` says *simulation*. Then `mingluo issue` a message, and compare `submit` and `ack` in the log with
   `mingluo status`.
2. Break it: `set rate=10`, `cut`, `logout`, `set silent=true` on the simulator's standard input
   ([carrier-simulator.md](carrier-simulator.md)). Nobody is sent to twice; those in the window are in doubt until their
   report comes.
3. Replies: `reply 10000000001 1`.
4. The carrier's own address in `host`: `mingluo doctor` refuses it until two people have said `mingluo live sms_cmpp`.
   Begin with one official's telephone of each carrier, a long text, and a reply from it.

## Reading errors

An answer's code is the protocol's number (`8`; SMPP `0x58`), a refused login's `login_` and the number. A report's code
is what it says: `MA:0001`, SGIP `state/error` (`2/29`), SMGP and SMPP `stat/err` (`UNDELIV/004`). Ours:

| code | meaning | what to do |
| --- | --- | --- |
| `unreachable` | no answer to the login within `connect_s` | address, port, firewall, our address at the carrier |
| `no_connection` | nobody was connected when the message was due | what ended the last one: `/v1/health` |
| `not_genuine` | the gateway does not know the secret | ask the carrier |
| `no_answer`, `connection_lost`, `unreadable`, `garbage` | no usable answer: in doubt | often: ask the carrier |
| `in_part` | some parts of a long text were taken and some not: in doubt | the code of the part that was not |
| `no_heartbeat`, `logged_out`, `lease_lost` | the connection ended | often: line, `connections`, clocks |
| `not_committed` | the database did not take reports: not acknowledged, they come again | the database |
| `flow_control`, `window_full` | too slow for what was due: later again, no attempt | `[rates]`, `window`, contract |
| `unfit`, `text`, `bad_address` | does not fit the protocol; no mobile number | the roster, the settings' lengths |
| `closing` | this process stopped: another one sends it | – |

## What to watch

- `mingluo_channel_down` by channel: 1 while the carrier serves nobody of a process; `/v1/health` names the code
  (`sms_smpp down: login_0x0e`), and `mingluo stuck` what waits for it.
- `mingluo_sessions_up` by channel: 0 while a process of it has no connection; with several hubs one may stay at 0, as
  the account's connections are another's.
- `mingluo_unmatched_reports`: more than a hundred that stay mean `bulk_ids` or `ids`, a changed account `name` or
  `secret` (tags of bulk ids are made with it), or another system on the account.
- `mingluo_reports_total` beside `mingluo_deliveries_total`: submits without reports mean that reports are off, or that
  SGIP cannot reach the listener.
- `mingluo_silent_recipients_total`: recipients on whom the carrier did not report within 48 hours, and who are unknown
  since. A few are telephones that are off; a carrier's share that rises means that reports are lost on the way.
- `mingluo_reports_dropped_total`: reports whose submit did not show up within three days: another system uses the
  account, or ids are read wrong (see above).
- `mingluo_elsewhere_total`: numbers the carrier says are another one's. Some are ported; many at once mean a wrong
  `carriers` or an old `config/carriers.csv`.
- `mingluo_connections` beside `mingluo_connections_allowed`: summed over the hubs they are equal, but for SGIP, which
  connects on demand and has neither. `mingluo_connections_broken_total` counts what ended badly, `why` as above; a
  login that failed is `login`.
- `mingluo_retries_total` with `why="paced"`: more is due than `[rates]` allows; with `why="throttled"`: than the
  carrier takes (`flow_control`, `window_full`). If it serves nobody else for a minute, it counts as down.
- `mingluo_possible_duplicates_total`: doubtful recipients of red warnings who were sent to once more.

## Codes

*Halved*: a bulk submit is sent again by halves until the number stands alone; the others have it. *Elsewhere*: the
number may have been carried over, and the other carriers are tried, each once.

### CMPP: answers to a login

{cmpp_statuses}

### CMPP: answers to a submit

{cmpp_results}

### CMPP: reports

{cmpp_stats}

### SGIP: answers

{sgip_results}

### SGIP: reports

`0/0` is delivered, `1/…` waiting; `2/…` failed, with an error code (one of the answers' may stand there as well):

{sgip_errors}

### SMGP: answers

{smgp_results}

### SMGP: reports

The state decides whether it failed, an error other than 000 says why.

{smgp_stats}

{smgp_errors}

### SMPP: answers

{smpp_statuses}

### SMPP: reports

Other states are read as CMPP's, for aggregators hand them on.

{smpp_stats}
"""


def answers(codes: Mapping[str, Meaning], most: int) -> str:
    """Return the table of answers; `most`: numbers in one submit."""

    def does(meaning: Meaning) -> str:
        halved = most > 1 and meaning.decision is Decision.PERMANENT and meaning.blame is Blame.NUMBER
        return ANSWER[meaning.decision] + ("; halved" if halved else "") + ("; elsewhere" if meaning.elsewhere else "")

    return _table((code, meaning, does(meaning)) for code, meaning in codes.items())


def reports(codes: Mapping[str, Meaning]) -> str:
    """Return the table of reports."""
    return _table(
        (code, meaning, REPORT[meaning.decision] + ("; elsewhere" if meaning.elsewhere else ""))
        for code, meaning in codes.items()
    )


def _table(rows: Iterable[tuple[str, Meaning, str]]) -> str:
    head = ["| code | meaning | 含义 | what the gateway does |", "| --- | --- | --- | --- |"]
    lines = [
        f"| {f'`{code}`' if code != OTHER else code} | {meaning.english} | {meaning.chinese} | {does} |"
        for code, meaning, does in rows
    ]
    return "\n".join(head + lines)


OTHER = "any other"
CMPP_NUMBERS, SGIP_NUMBERS, SMGP_NUMBERS, SMPP_NUMBERS = 99, 100, 100, 1
SGIP_ANSWERS = 20  # codes up to here belong to answers, the others to reports


def _named(codes: Mapping[int, Meaning], other: Meaning) -> dict[str, Meaning]:
    return {str(code): meaning for code, meaning in codes.items()} | {OTHER: other}


def _stations() -> dict[str, Meaning]:
    return {
        f"{station}{answer}:…": cmpp.stat_meaning(f"{station}{answer}:0000")
        for station in cmpp.STATIONS
        for answer in cmpp.ANSWERS
    }


def text() -> str:
    """Return the page's content."""
    errors = {f"2/{code}": meaning for code, meaning in sgip.RESULTS.items() if code > SGIP_ANSWERS}
    own = {code: meaning for code, meaning in sgip.RESULTS.items() if code <= SGIP_ANSWERS}
    statuses = {smpp.shown(code): meaning for code, meaning in smpp.STATUSES.items()}
    return PAGE.format(
        cmpp_statuses=answers(_named(cmpp.STATUSES, cmpp.OTHER_STATUS), 1),
        cmpp_results=answers(_named(cmpp.RESULTS, cmpp.OTHER_RESULT), CMPP_NUMBERS),
        cmpp_stats=reports(cmpp.STATS | _stations() | {OTHER: cmpp.OTHER_STAT}),
        sgip_results=answers(_named(own, sgip.OTHER_RESULT), SGIP_NUMBERS),
        sgip_errors=reports(errors | {OTHER: sgip.OTHER_RESULT}),
        smgp_results=answers(_named(smgp.RESULTS, smgp.OTHER_RESULT), SMGP_NUMBERS),
        smgp_stats=reports(smgp.STATS | {OTHER: smgp.OTHER_STAT}),
        smgp_errors=reports(smgp.ERRORS),
        smpp_statuses=answers(statuses | {OTHER: smpp.OTHER_STATUS}, SMPP_NUMBERS),
        smpp_stats=reports(smpp.STATS),
    )


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf8")

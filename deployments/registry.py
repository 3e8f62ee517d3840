"""Which flows there are, and what operators are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema

from deployments import runs
from flows.approve import approve
from flows.arrivals import take_arrivals
from flows.asking import ask_operator
from flows.canary import canary_erasure
from flows.compliance_sweep import compliance_sweep
from flows.drift import check_drift
from flows.erase_subject import anonymize_subject, erase_subject, resume_erasures
from flows.export_subject import export_subject
from flows.pausing import pause_platform, resume_platform
from flows.plan import plan_ahead
from flows.publish import prepare, publish, takedown
from flows.publish_due import publish_due
from flows.purge_retention import purge_retention
from flows.reconcile import reconcile_deliveries
from flows.requests import check_requests, handle_request
from flows.sweep import sweep_deliveries
from flows.tell import tell
from flows.triggers import alert, fire

POOL = runs.POOL


@dataclass(frozen=True)
class Spec:
    """One flow: where it is, and what its deployment tells."""

    flow: Flow[Any, Any]
    entrypoint: str
    description: str
    tags: tuple[str, ...] = ()


DEPLOYMENTS = (
    Spec(
        publish,
        "flows.publish.publish",
        "**Publish a post now**, on every target that is not settled yet. Running it again sends"
        " nothing twice: what is live stays live, what is unknown is looked for first.",
        tags=("publishing",),
    ),
    Spec(
        prepare,
        "flows.publish.prepare",
        "**Prepare a scheduled post** ahead of its time: renditions, wording, uploads. Nothing"
        " becomes visible.",
        tags=("publishing",),
    ),
    Spec(
        takedown,
        "flows.publish.takedown",
        "**Take a post down** on every platform that can, and say where it cannot be done.",
        tags=("publishing",),
    ),
    Spec(
        publish_due,
        "flows.publish_due.publish_due",
        "**Send everything that is due at one moment.** Made by `clickpost publish --at`: one run"
        " for each moment, one task run for each delivery.",
        tags=("publishing", "scheduled"),
    ),
    Spec(
        reconcile_deliveries,
        "flows.reconcile.reconcile_deliveries",
        "**Look for every post whose outcome got lost**: it is there, or is sent once more, or an"
        " operator is asked. Without a delivery it takes all of them.",
        tags=("sweep",),
    ),
    Spec(
        ask_operator,
        "flows.asking.ask_operator",
        "**Ask an operator what no look can tell.** A run of this waits for your answer: press"
        " Resume on its page. Runs are made by ClickPost, one for each question.",
        tags=("question",),
    ),
    Spec(
        pause_platform,
        "flows.pausing.pause_platform",
        "**Stop sending to a platform**, where something is wrong there or with us. What falls due"
        " is held, not failed; takedowns and looks go on.",
        tags=("operating",),
    ),
    Spec(
        resume_platform,
        "flows.pausing.resume_platform",
        "**Go on sending to a paused platform.** What was held is sent now; what became late is"
        " treated as its post's `late` says.",
        tags=("operating",),
    ),
    Spec(
        approve,
        "flows.approve.approve",
        "**Ask whether a post may be published.** A run of this waits for your decision: press"
        " Resume on its page. Runs are made by ClickPost, one for each approval.",
        tags=("question",),
    ),
    Spec(
        fire,
        "flows.triggers.fire",
        "**Start what a trigger asks for**, unless its quiet hours or its `at_most` are against it."
        " Runs are made by triggers; `clickpost policy apply` makes a deployment for each.",
        tags=("trigger",),
    ),
    Spec(
        take_arrivals,
        "flows.arrivals.take_arrivals",
        "**Look for new entries of a feed, files of a folder or mails**, and take each once. Runs"
        " are made by triggers; `clickpost policy apply` makes a deployment for each.",
        tags=("trigger",),
    ),
    Spec(
        alert,
        "flows.triggers.alert",
        "**Tell people that a trigger wants their attention**, through the channels of `clickpost"
        " notify`. Meant as the `run` of a trigger.",
        tags=("telling",),
    ),
    Spec(
        plan_ahead,
        "flows.plan.plan_ahead",
        "**Make what comes next**: the next posts of each series, preparations that would be stale"
        " at their moment, approvals that nobody asked for yet.",
        tags=("scheduled",),
    ),
    Spec(
        sweep_deliveries,
        "flows.sweep.sweep_deliveries",
        "**Find what is stuck and move it on**: lost leases, unknown outcomes, overdue deliveries.",
        tags=("sweep",),
    ),
    Spec(
        tell,
        "flows.tell.tell",
        "**Tell people what they have to know**: events to Prefect, and e-mail, webhooks and chat"
        " as `clickpost notify` says. What is not taken is tried again for a day.",
        tags=("telling",),
    ),
    Spec(
        check_drift,
        "flows.drift.check_drift",
        "**Look whether live posts are still there**, an hour, a day, a week and a month after."
        " What vanished outside is `gone`, what was changed gets a note.",
        tags=("sweep",),
    ),
    Spec(
        erase_subject,
        "flows.erase_subject.erase_subject",
        "**Erase what is held about a person or an account**, and prove it with a certificate."
        " `clickpost privacy plan` shows first what would go; what is held goes when that ends.",
        tags=("privacy",),
    ),
    Spec(
        anonymize_subject,
        "flows.erase_subject.anonymize_subject",
        "**Anonymize what is held about a person or an account**: rows stay, and lead to nobody.",
        tags=("privacy",),
    ),
    Spec(
        resume_erasures,
        "flows.erase_subject.resume_erasures",
        "**Carry on parked erasures**: a hold ended, a platform may be asked again, a run was cut.",
        tags=("privacy",),
    ),
    Spec(
        export_subject,
        "flows.export_subject.export_subject",
        "**Give a person what is held about them**: one archive for programs and for people, behind"
        " a link that expires. Runs are made by `handle-request`, once the request is verified.",
        tags=("privacy",),
    ),
    Spec(
        purge_retention,
        "flows.purge_retention.purge_retention",
        "**Purge what has expired**, as `policies/retention` says: each policy counts only, until"
        " it says `mode: apply`. The report is the artifact `retention`.",
        tags=("privacy",),
    ),
    Spec(
        handle_request,
        "flows.requests.handle_request",
        "**Take a person's request about their data a step further**: ask them to confirm it, carry"
        " it out, tell them. It ends where it waits; running it again does nothing twice.",
        tags=("privacy",),
    ),
    Spec(
        check_requests,
        "flows.requests.check_requests",
        "**Watch people's requests**: move on what waits for nobody, and raise an alarm before one"
        " is overdue. What is open and when it is due is the artifact `requests`.",
        tags=("privacy", "sweep"),
    ),
    Spec(
        canary_erasure,
        "flows.canary.canary_erasure",
        "**Let a canary fly**: a made-up person and business are created and erased as real ones,"
        " then looked for in every table, file and record. What is found fails the run.",
        tags=("privacy", "sweep"),
    ),
    Spec(
        compliance_sweep,
        "flows.compliance_sweep.compliance_sweep",
        "**Look whether the privacy promises hold**: requests, purges, the data map, tokens,"
        " platforms' duties, proofs, sources. Red fails the run. The report is the artifact"
        " `compliance`.",
        tags=("privacy", "sweep"),
    ),
)


async def deploy(client: PrefectClient, spec: Spec) -> None:
    """Make a deployment beside those of `policy apply`, for a benchmark or a test."""
    await client.create_deployment(
        flow_id=await client.create_flow(spec.flow),
        name=spec.flow.name,
        work_pool_name=POOL,
        tags=list(spec.tags),
        description=spec.description,
        entrypoint=spec.entrypoint,
        path=None,
        enforce_parameter_schema=True,
        parameter_openapi_schema=parameter_schema(spec.flow).model_dump(exclude_unset=True),
    )

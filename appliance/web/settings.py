"""The port ``api.ports.settings`` over the configuration file and the doctor."""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from api.auth.roles import Caller
from api.refusals import BeyondReach, Outdated
from api.schemas import settings as schemas
from api.schemas.common import Model, Refusal
from appliance import config, config_editing, doctor
from appliance.auditing import audit
from appliance.checks import configured
from appliance.config import Settings
from appliance.config_file import ConfigurationChanged, ConfigurationFile
from appliance.jobs.retention import keeps_less, policy_of
from appliance.telling import events
from appliance.telling.settings import Notify
from appliance.web import names, tls
from appliance.web.taking import Taking
from appliance.wiring import Services
from catalog.jobs.policy import Keep
from proxy.errors import ConfigurationError, LanfreeError

FRESH = timedelta(seconds=10)
"""For which a diagnosis is given again: it asks every hypervisor, and a page may be reloaded quickly."""

Flat = Mapping[tuple[str, ...], Any]
"""Place in the file -> value."""


class WebSystemSettings:
    """Of the process of API and console."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._file = ConfigurationFile(services.settings.source)
        self._taking = Taking(services)
        self._diagnosing = threading.Lock()
        self._diagnosis: schemas.Diagnosis | None = None

    def get(self) -> tuple[schemas.Settings, str]:
        """See the port."""
        version = self._file.read().digest
        self._taking.look()
        settings = self._services.settings
        refused = self._taking.refused
        return (
            schemas.Settings(
                source=str(settings.source),
                values=changeable(settings),
                notify=[self._way(section) for section in settings.notify],
                console=_console(settings),
                refused=refused and Refusal(code=refused.code, message=refused.message, hint=refused.hint),
            ),
            version,
        )

    def change(self, caller: Caller, values: schemas.Changeable, version: str) -> tuple[schemas.Settings, str]:
        """See the port."""
        if not caller.sees_all:
            raise BeyondReach(caller.name, "change settings, which count for all machines")

        def edit(text: str) -> str:
            known = config.parse(text, self._file.path)
            changes = differing(changeable(known), values)
            edited = config_editing.with_values(text, changes)
            config.parse(edited, self._file.path)
            if changes:
                audit(
                    self._services,
                    "change-settings",
                    who=caller.who,
                    changes={".".join(place): value for place, value in changes.items()},
                )
            return edited

        try:
            self._taking.take(self._file.edit(edit, expected=version))
        except ConfigurationChanged:
            raise Outdated("the configuration") from None
        return self.get()

    def shortens(self, values: schemas.Changeable) -> str:
        """See the port."""
        before, after = self._services.settings.retention, values.retention
        new = config.Retention(**after.keep.model_dump(), zone=after.zone, forgotten_jobs=after.forgotten_jobs)
        found = [keeps_less(policy_of(before), policy_of(new))]
        if before.forgotten_jobs == "keep" and new.forgotten_jobs == "follow" and not policy_of(new).is_empty:
            found.append("points of forgotten jobs follow the rules, where they were kept")
        return ", ".join(filter(None, found))

    def notify(self, caller: Caller, way: str | None) -> schemas.NotificationResults:
        """See the port."""
        if not caller.sees_all:
            raise BeyondReach(caller.name, "speak to people on behalf of the whole site")
        telling = self._services.telling
        if way is not None and way not in telling.names:
            raise ConfigurationError(
                "[[notify]]", f"there is none called {way!r}", hint=f"there are: {', '.join(telling.names) or 'none'}"
            )
        audit(self._services, "test-notification", who=caller.who, ways=[way] if way else list(telling.names))
        event = events.trial(self._services.clock.now())
        results = []
        for name in [way] if way else telling.names:
            why = ""
            try:
                telling.try_now(name, event)
            except LanfreeError as error:
                why = f"{error.message}{'; ' + error.hint if error.hint else ''}"
            results.append(schemas.NotificationResult(name=name, told=not why, why=why))
        return schemas.NotificationResults(results=results)

    def diagnose(self) -> schemas.Diagnosis:
        """See the port. Whoever comes meanwhile waits for the same."""
        with self._diagnosing:
            known = self._diagnosis
            if known is not None and datetime.now(UTC) - known.at < FRESH:
                return known
            settings = self._services.settings
            site = doctor.site_of(settings, lab=False, launch=False)
            results = list(doctor.diagnose(site, extra=configured(settings)))
            self._diagnosis = schemas.Diagnosis(
                at=datetime.now(UTC),
                worst=schemas.Outcome(doctor.worst(results).value),
                results=[
                    schemas.CheckResult(
                        check=row.check,
                        outcome=schemas.Outcome(row.outcome.value),
                        detail=row.detail,
                        remedy=row.remedy,
                    )
                    for row in results
                ],
            )
            return self._diagnosis

    def _way(self, section: Notify) -> schemas.NotificationWay:
        return schemas.NotificationWay(
            name=section.name,
            kind=section.kind,
            events=[kind.value for kind in section.events],
            jobs=list(section.jobs),
            quiet_from=section.quiet_from,
            quiet_to=section.quiet_to,
            waiting=len(self._services.telling.waiting(section.name)),
        )


def changeable(settings: Settings) -> schemas.Changeable:
    """What of these settings may be changed."""
    retention = settings.retention
    document: dict[str, Any] = {
        name: getattr(settings, name).model_dump(mode="json", include=set(model.model_fields))
        for name, model in _SECTIONS.items()
    }
    document["retention"] = {
        "keep": retention.model_dump(include=set(Keep.model_fields)),
        "zone": retention.zone,
        "forgotten_jobs": retention.forgotten_jobs,
    }
    document["sessions"] = settings.web.model_dump(include=set(schemas.SessionSettings.model_fields))
    return schemas.Changeable.model_validate(document)


def differing(old: schemas.Changeable, new: schemas.Changeable) -> Flat:
    """What has to be written into the file; ``None`` for what has its default again, and so need not stand there."""
    before, after, default = _flat(old), _flat(new), _flat(schemas.Changeable())
    changed = {place: value for place, value in after.items() if value != before[place]}
    return {place: None if value == default[place] else value for place, value in changed.items()}


_SECTIONS: Mapping[str, type[Model]] = {
    "limits": schemas.LimitSettings,
    "latency": schemas.LatencySettings,
    "coverage": schemas.CoverageSettings,
    "proxy": schemas.ProxySettings,
    "backup": schemas.BackupSettings,
    "files": schemas.FileSettings,
    "protect": schemas.ProtectSettings,
    "reports": schemas.ReportSettings,
}
"""Sections of the file that the API has under the same name, with the same keys."""


def _flat(values: schemas.Changeable) -> dict[tuple[str, ...], Any]:
    document = values.model_dump(mode="json")
    retention = document["retention"]
    sections = {name: document[name] for name in _SECTIONS}
    sections["retention"] = {**retention.pop("keep"), **retention}
    sections["web"] = document["sessions"]
    return {(section, key): value for section, keys in sections.items() for key, value in keys.items()}


def _console(settings: Settings) -> schemas.Console:
    web = settings.web
    shown = tls.known(web, settings.state.directory / "web")
    authority = tls.authority_fingerprint(shown) if shown is not None else None
    return schemas.Console(
        address=names.address_of(web),
        names=_listed(names.names_of(web)),
        fingerprint=shown.fingerprint if shown is not None else "",
        authority=authority,
        certificate_expires_at=shown.expires_at if shown is not None else None,
        four_eyes=web.four_eyes,
        restore_directories=_listed(web.restore_directories),
        hypervisor_networks=_listed(web.hypervisor_networks),
        hypervisor_uris=_listed(web.hypervisor_uris),
        single_sign_on=web.oidc.issuer if web.oidc is not None else None,
    )


def _listed(values: Sequence[object]) -> list[str]:
    return [str(value) for value in values]

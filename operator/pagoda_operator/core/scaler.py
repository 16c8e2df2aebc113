"""Which scaler a service gets: who sets its replicas, by whose numbers; or why nobody does."""

from __future__ import annotations

from typing import Final

from pagoda_operator.api.autoscaling import Autoscaling
from pagoda_operator.api.names import Object
from pagoda_operator.builders.scaling import Scaling, Source
from pagoda_operator.core.conditions import Finding, no
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.schedule import floor
from pagoda_operator.core.settings import Settings

KEDA: Final = "ScaledObject"
"""The kind that a cluster with KEDA serves."""


def choose(autoscaling: Autoscaling, facts: Facts, settings: Settings) -> Source | Finding:
    """KEDA where it is served and has something to ask, else an HPA; unless the spec names one.

    Where there is no scaler to be had, the finding says why and what helps.
    """
    if settings.local:
        return no("LocalMode", "there is no scaler without a cluster; spec.replicas holds")
    served, source = KEDA in facts.served, _keda_source(settings)
    if autoscaling.provider == "keda":
        if not served:
            missing = "spec.autoscaling.provider is keda, and this cluster does not serve scaledobjects.keda.sh"
            return no("KedaAbsent", f"{missing}: install KEDA, or set provider to auto")
        if source is None:
            missing = "KEDA is installed, and the operator has nothing for it to ask"
            return no("NoMetricsSource", f"{missing}: set the chart's prometheusAddress, or scaler.enabled")
        return source
    if autoscaling.provider == "auto" and served and source is not None:
        return source
    own = settings.external_metrics and not facts.external_metrics_holder
    return Source.EXTERNAL_METRICS if own else Source.POD_METRICS


def scaling(service: Object, autoscaling: Autoscaling | None, facts: Facts, settings: Settings) -> Scaling | None:
    """How a service scales now, for the builders; None where nobody scales it."""
    if autoscaling is None or isinstance(source := choose(autoscaling, facts, settings), Finding):
        return None
    authentication, modes = _authentication(autoscaling, settings) if source is Source.PROMETHEUS else (None, ())
    return Scaling(
        source=source,
        prometheus_address=settings.prometheus_address,
        push_address=settings.scaler_address,
        authentication=authentication,
        auth_modes=modes,
        min_replicas=floor(autoscaling, facts.now).min_replicas,
        cold_start_seconds=(service.get("status", {}).get("scaling") or {}).get("coldStartSeconds"),
    )


def _keda_source(settings: Settings) -> Source | None:
    if settings.prometheus_address:
        return Source.PROMETHEUS
    return Source.EXTERNAL_PUSH if settings.scaler_address else None


def _authentication(autoscaling: Autoscaling, settings: Settings) -> tuple[Object | None, tuple[str, ...]]:
    """A trigger's `authenticationRef` and its modes: the spec's, else the administrator's for the whole cluster."""
    if (asked := autoscaling.prometheus_authentication) is not None:
        return {"name": asked.name, "kind": asked.kind}, asked.modes
    if settings.prometheus_authentication:
        reference = {"name": settings.prometheus_authentication, "kind": "ClusterTriggerAuthentication"}
        return reference, settings.prometheus_auth_modes
    return None, ()

"""A Kubernetes control plane of this run alone: etcd, API server, controller manager, scheduler.

All state is in one folder and goes with it. The API server listens on the pods' bridge, which only this machine can
reach; its certificate is its own, tokens name the users, RBAC and the default admission plugins are on, and every
request ends in an audit log.
"""

from __future__ import annotations

import secrets
import ssl
import subprocess
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

import yaml
from e2e.binaries import Binaries
from e2e.daemon import Daemon, free_ports

ADMIN = "pagoda:harness"
USERS = {
    ADMIN: "system:masters",
    "system:kube-controller-manager": "system:authenticated",
    "system:kube-scheduler": "system:authenticated",
}
FRONT_PROXY = "front-proxy-client"
"""The common name under which the API server passes requests on to extension servers."""
HPA_SYNC = "2s"
"""How often the HPA controller looks. 15 s by default, and tests wait for several of them."""
READY_SECONDS = 60.0
CURVE = ("-pkeyopt", "ec_paramgen_curve:P-256")
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "omitManagedFields": True,
    "rules": [{"level": "Metadata"}],
}


class ControlPlane:
    """Starts in the constructor; `stop` ends all of it. `folder` belongs to it."""

    def __init__(self, binaries: Binaries, folder: Path, address: str, hpa_sync: str = HPA_SYNC) -> None:
        self.hpa_sync = hpa_sync
        self._binaries = binaries
        self._folder = folder
        self._address = address
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._daemons: list[Daemon] = []
        self.audit_log = folder / "audit.jsonl"
        self.ca = folder / "certificates" / "apiserver.crt"
        self.port = free_ports(address, 1)[0]
        self.url = f"https://{address}:{self.port}"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def admin_token(self) -> str:
        return self._tokens[ADMIN]

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for kubectl and helm."""
        return self._folder / "admin.kubeconfig"

    def restart_api_server(self) -> None:
        """Kill it in the middle of whatever it does; returns once it answers again."""
        server = self._daemon("kube-apiserver")
        server.restart()
        server.wait_until(self._answers, seconds=READY_SECONDS)

    def etcd_stopped(self) -> AbstractContextManager[None]:
        """While the context is open etcd answers nothing, and so the API server only what it has in memory."""
        return self._daemon("etcd").stopped()

    def controllers_stopped(self) -> AbstractContextManager[None]:
        """While the context is open nobody makes pods of Deployments, and nobody collects garbage."""
        return self._daemon("kube-controller-manager").stopped()

    def _daemon(self, name: str) -> Daemon:
        return next(daemon for daemon in self._daemons if daemon.name == name)

    def stop(self) -> None:
        """The last started first, so that nothing complains of what is gone already."""
        while self._daemons:
            self._daemons.pop().stop()

    def _start(self) -> None:
        self._write_credentials()
        etcd_port, peer_port = free_ports("127.0.0.1", 2)
        etcd = f"http://127.0.0.1:{etcd_port}"
        self._run(self._binaries.etcd, "etcd", self._etcd_flags(etcd, f"http://127.0.0.1:{peer_port}"))
        server = self._run(self._binaries.kube_apiserver, "kube-apiserver", self._server_flags(etcd))
        server.wait_until(self._answers, seconds=READY_SECONDS)
        for user in USERS:
            self._write_kubeconfig(user)
        self._kubeconfig_of(ADMIN).rename(self.kubeconfig)
        self._run(self._binaries.kube_scheduler, "kube-scheduler", self._scheduler_flags())
        manager = self._run(
            self._binaries.kube_controller_manager, "kube-controller-manager", self._controller_manager_flags()
        )
        manager.wait_until(self._has_default_account, seconds=READY_SECONDS)

    def _run(self, binary: Path, name: str, flags: dict[str, str]) -> Daemon:
        command = [binary, *(f"--{flag}={value}" for flag, value in flags.items())]
        daemon = Daemon(name, command, log=self._folder / f"{name}.log")
        self._daemons.append(daemon)
        return daemon

    def _etcd_flags(self, client: str, peer: str) -> dict[str, str]:
        return {
            "data-dir": str(self._folder / "etcd"),
            "unsafe-no-fsync": "true",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "warn",
        }

    def _server_flags(self, etcd: str) -> dict[str, str]:
        folder = self._folder
        return {
            "etcd-servers": etcd,
            "bind-address": self._address,
            "advertise-address": self._address,
            "secure-port": str(self.port),
            "cert-dir": str(self.ca.parent),
            "token-auth-file": str(folder / "tokens.csv"),
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-signing-key-file": str(folder / "accounts.key"),
            "service-account-key-file": str(folder / "accounts.pub"),
            "service-cluster-ip-range": "10.96.0.0/16",
            "allow-privileged": "false",
            # Not on by default, but OpenShift has it: who blocks an owner's deletion must have a right to.
            "enable-admission-plugins": "OwnerReferencesPermissionEnforcement",
            "audit-policy-file": str(folder / "audit-policy.yaml"),
            "audit-log-path": str(self.audit_log),
            "audit-log-maxsize": "0",
            "event-ttl": "1h",
            **self._aggregation_flags(),
        }

    def _aggregation_flags(self) -> dict[str, str]:
        """Those of kubeadm; and, without a kube-proxy, extension servers are reached by their endpoints' addresses."""
        return {
            "requestheader-client-ca-file": str(self._folder / "front-proxy-ca.crt"),
            "requestheader-allowed-names": FRONT_PROXY,
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": str(self._folder / "front-proxy.crt"),
            "proxy-client-key-file": str(self._folder / "front-proxy.key"),
            "enable-aggregator-routing": "true",
        }

    def _controller_manager_flags(self) -> dict[str, str]:
        return {
            "kubeconfig": str(self._kubeconfig_of("system:kube-controller-manager")),
            "service-account-private-key-file": str(self._folder / "accounts.key"),
            "root-ca-file": str(self.ca),
            "use-service-account-credentials": "true",
            "leader-elect": "false",
            "secure-port": "0",
            # The defaults (20 and 30) are made for many machines: here they only make everything late.
            "kube-api-qps": "500",
            "kube-api-burst": "1000",
            "horizontal-pod-autoscaler-sync-period": self.hpa_sync,
        }

    def _scheduler_flags(self) -> dict[str, str]:
        return {
            "kubeconfig": str(self._kubeconfig_of("system:kube-scheduler")),
            "leader-elect": "false",
            "secure-port": "0",
            "kube-api-qps": "500",
            "kube-api-burst": "1000",
        }

    def _write_credentials(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
        rows = [f'{self._tokens[user]},{user},{user},"{group}"' for user, group in USERS.items()]
        (self._folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        key, public = str(self._folder / "accounts.key"), str(self._folder / "accounts.pub")
        _openssl("genpkey", "-algorithm", "EC", *CURVE, "-out", key)
        _openssl("pkey", "-in", key, "-pubout", "-out", public)
        self._write_front_proxy()

    def _write_front_proxy(self) -> None:
        """An authority, and the API server's certificate as a client of extension servers."""
        prefix = str(self._folder / "front-proxy")
        new = ("req", "-x509", "-nodes", "-newkey", "EC", *CURVE, "-days", "2")
        _openssl(*new, "-subj", f"/CN={FRONT_PROXY}-ca", "-keyout", f"{prefix}-ca.key", "-out", f"{prefix}-ca.crt")
        client = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth")
        signer = ("-CA", f"{prefix}-ca.crt", "-CAkey", f"{prefix}-ca.key")
        files = ("-keyout", f"{prefix}.key", "-out", f"{prefix}.crt")
        _openssl(*new, *signer, *client, "-subj", f"/CN={FRONT_PROXY}", *files)

    def _kubeconfig_of(self, user: str) -> Path:
        return self._folder / f"{user.replace(':', '-')}.kubeconfig"

    def _write_kubeconfig(self, user: str) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": user}}],
            "current-context": "e2e",
        }
        self._kubeconfig_of(user).write_text(yaml.safe_dump(document))

    def _answers(self) -> bool:
        return self.ca.exists() and self._get("/readyz") is not None

    def _has_default_account(self) -> bool:
        return self._get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def _get(self, path: str) -> str | None:
        """The body of a 200, or None."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.admin_token}"})
        try:
            with urllib.request.urlopen(
                request, timeout=5, context=ssl.create_default_context(cafile=str(self.ca))
            ) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

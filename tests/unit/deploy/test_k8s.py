"""The Kubernetes manifests agree with themselves and with the configuration they mount."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fallback.config import FallbackSettings, load
from gateway.config import GatewaySettings

BASE = Path(__file__).parents[3] / "deploy" / "k8s" / "base"
PODS = ("demur-gateway", "demur-review", "demur-trainer", "demur-valkey")
RESTRICTED_VOLUMES = {"name", "configMap", "secret", "emptyDir", "persistentVolumeClaim"}


def _documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return [document for name in listed for document in yaml.safe_load_all((BASE / name).read_text())]


def _pods() -> dict[str, dict[str, Any]]:
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in _documents()
        if document["kind"] in {"Deployment", "StatefulSet"}
    }


def test_every_listed_file_is_there_and_every_file_is_listed() -> None:
    """Nothing lies in the base that kustomize would not apply."""
    listed = set(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_mounted_configuration_is_one_that_demur_accepts() -> None:
    """A key that this version does not know would keep every pod from starting."""
    assert load(BASE / "demur.toml").data_folder == Path("/var/lib/demur")


def test_ports_agree_with_the_configuration() -> None:
    """What a Service sends on is what the process in the pod listens on."""
    settings = tomllib.loads((BASE / "demur.toml").read_text())
    listening = {
        "demur-gateway": {settings["gateway"]["grpc_listen"], settings["gateway"]["metrics_listen"]},
        "demur-review": {settings["fallback"]["grpc_listen"], settings["fallback"]["page_listen"]},
    }
    for name, addresses in listening.items():
        (container,) = _pods()[name]["containers"]
        opened = {port["containerPort"] for port in container["ports"]}
        assert opened == {int(address.rpartition(":")[2]) for address in addresses}
        (service,) = (
            document
            for document in _documents()
            if (document["kind"], document["metadata"]["name"]) == ("Service", name)
        )
        assert {port["port"] for port in service["spec"]["ports"]} == opened
        assert service["spec"]["selector"] == {"app": name}


def test_every_volume_that_is_mounted_is_declared() -> None:
    """A mount without its volume is refused only when the pod is created."""
    for pod in _pods().values():
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in pod.get("volumes", [])} | {"data"}


def test_claims_and_secrets_are_made_somewhere() -> None:
    """Claims stand in the base; secrets are the two that the page of instructions creates."""
    claims = {document["metadata"]["name"] for document in _documents() if document["kind"] == "PersistentVolumeClaim"}
    told = (BASE.parent / "README.md").read_text()
    for pod in _pods().values():
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "secret" in volume:
                assert f"secret generic {volume['secret']['secretName']}" in told
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    assert f"{variable['valueFrom']['secretKeyRef']['key']}=" in told


def test_every_pod_is_looked_at() -> None:
    """The tests below name them."""
    assert set(_pods()) == set(PODS) == set(_containers())


def test_the_embedded_promise_holds_for_the_pod_too() -> None:
    """The queue's server syncs before it replies and never evicts."""
    (container,) = _pods()["demur-valkey"]["containers"]
    arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert arguments["--appendonly"] == "yes"
    assert arguments["--appendfsync"] == "always"
    assert arguments["--maxmemory-policy"] == "noeviction"


def _containers() -> dict[str, dict[str, Any]]:
    """The one container of each pod, by the pod's name."""
    return {name: pod["containers"][0] for name, pod in _pods().items() if len(pod["containers"]) == 1}


def _selected(kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document["spec"] for document in _documents() if document["kind"] == kind}


@pytest.mark.parametrize("name", PODS)
def test_pods_keep_to_the_restricted_pod_security_standard(name: str) -> None:
    """Of kubernetes.io/docs/concepts/security/pod-security-standards; where it is enforced no other pod is made."""
    pod, container = _pods()[name], _containers()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(set(volume) <= RESTRICTED_VOLUMES for volume in pod.get("volumes", []))
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)


@pytest.mark.parametrize("name", PODS)
def test_what_is_written_lies_on_volumes(name: str) -> None:
    """The file system of the image is read-only; no process of ours talks to the cluster either."""
    pod, container = _pods()[name], _containers()[name]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written >= ({"/data"} if name == "demur-valkey" else {"/var/lib/demur", "/tmp"})


@pytest.mark.parametrize(
    ("name", "table", "type_"),
    [("demur-gateway", "gateway", GatewaySettings), ("demur-review", "fallback", FallbackSettings)],
)
def test_a_pod_that_ends_goes_on_until_callers_know_and_has_time_to_drain(
    name: str, table: str, type_: type[GatewaySettings | FallbackSettings]
) -> None:
    """By a command that the image has (coreutils), within the time after which it is killed."""
    (command, seconds) = _containers()[name]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert "python:3.12-slim" in (BASE.parent / "Dockerfile").read_text()
    settings = load(BASE / "demur.toml").table(table, type_)
    grace = _pods()[name]["terminationGracePeriodSeconds"]
    assert 0 < int(seconds) < int(seconds) + settings.drain_seconds < grace


def test_those_of_which_there_are_several_are_not_all_gone_at_once() -> None:
    """A drain of nodes takes one at a time, and they are not all on one node where there are more."""
    several = [d for d in _documents() if d["kind"] == "Deployment" and d["spec"]["replicas"] > 1]
    assert {document["metadata"]["name"] for document in several} == set(_selected("PodDisruptionBudget"))
    for document in several:
        name, labels = document["metadata"]["name"], {"matchLabels": {"app": document["metadata"]["name"]}}
        assert document["spec"]["selector"] == labels
        assert _selected("PodDisruptionBudget")[name] == {"maxUnavailable": 1, "selector": labels}
        (spread,) = _pods()[name]["topologySpreadConstraints"]
        assert spread["labelSelector"] == labels


def test_only_demurs_pods_reach_valkey() -> None:
    """Those that have its address, by the labels that they carry, on the port that it has."""
    policy = _selected("NetworkPolicy")["demur-valkey"]
    assert policy["podSelector"] == {"matchLabels": {"app": "demur-valkey"}}
    (rule,) = policy["ingress"]
    ((source,), (port,)) = rule["from"], rule["ports"]
    (wanted,) = source["podSelector"]["matchExpressions"]
    asking = {
        name for name, found in _containers().items() if any(e["name"] == "DEMUR_REDIS_URL" for e in found["env"])
    }
    assert (wanted["key"], wanted["operator"], set(wanted["values"])) == ("app", "In", asking)
    assert asking == set(PODS) - {"demur-valkey"}
    (opened,) = _containers()["demur-valkey"]["ports"]
    assert port == {"protocol": "TCP", "port": opened["containerPort"]}


def test_valkey_asks_for_a_password_that_is_in_the_secret_alone() -> None:
    """The address that the others get from the same secret holds it, as the page of instructions makes it."""
    container = _containers()["demur-valkey"]
    (variable,) = container["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "demur-secrets", "key": "redis-password"}
    assert f"--requirepass $({variable['name']})" in " ".join(container["args"])
    told = (BASE.parent / "README.md").read_text()
    assert '--from-literal=redis-password="$PASSWORD"' in told
    assert '--from-literal=redis-url="redis://:$PASSWORD@demur-valkey:6379/0"' in told


def test_valkey_is_not_ready_while_it_loads() -> None:
    """Without -e its client ends with 0 on an error too; REDISCLI_AUTH is where it looks for the password."""
    container = _containers()["demur-valkey"]
    assert container["readinessProbe"]["exec"]["command"] == ["valkey-cli", "-e", "ping"]
    assert [variable["name"] for variable in container["env"]] == ["REDISCLI_AUTH"]

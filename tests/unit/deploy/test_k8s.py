"""The Kubernetes manifests agree with themselves and with the configuration they mount."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from fallback.config import load

BASE = Path(__file__).parents[3] / "deploy" / "k8s" / "base"


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


def test_the_embedded_promise_holds_for_the_pod_too() -> None:
    """The queue's server syncs before it replies and never evicts."""
    (container,) = _pods()["demur-valkey"]["containers"]
    arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert arguments["--appendonly"] == "yes"
    assert arguments["--appendfsync"] == "always"
    assert arguments["--maxmemory-policy"] == "noeviction"

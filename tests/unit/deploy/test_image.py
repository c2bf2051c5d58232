"""The image that is built is the one that the manifests ask for, in the base and on GPU nodes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
K8S = ROOT / "deploy" / "k8s"


def _kustomization(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((K8S / folder / "kustomization.yaml").read_text())
    return found


def _tagged(folder: str) -> dict[str, str]:
    """The name and tag that a kustomization gives each image that it names."""
    named = _kustomization(folder).get("images", [])
    return {image["name"]: f"{image.get('newName', image['name'])}:{image['newTag']}" for image in named}


def _gpu_patch() -> dict[str, Any]:
    """What the GPU overlay sets, by the path below a pod's `spec`."""
    (patch,) = _kustomization("overlays/gpu")["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": "demur-gateway"}
    return {step["path"].removeprefix("/spec/template/spec/"): step["value"] for step in yaml.safe_load(patch["patch"])}


def test_the_names_that_are_built_are_those_that_are_asked_for() -> None:
    """By the commands at the top of the Dockerfile; with the version that is installed in the image."""
    built = re.findall(r"^#\s+docker build .* -t (\S+)(.*)$", (K8S / "Dockerfile").read_text(), re.MULTILINE)
    (plain,) = (name for name, rest in built if "gpu" not in rest)
    (gpu,) = (name for name, rest in built if "EXTRA='[gpu]'" in rest)
    assert (plain, gpu) == (_tagged("base")["demur"], _tagged("overlays/gpu")["demur-gpu"])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (plain, gpu) == (f"demur:{version}", f"demur:{version}-gpu")


def test_what_the_page_of_instructions_builds_is_what_is_applied() -> None:
    """Whoever follows it must not end with an image that no pod asks for."""
    built = re.findall(r"docker build .* -t (\S+)", (K8S / "README.md").read_text())
    assert built
    assert set(built) <= {*_tagged("base").values(), *_tagged("overlays/gpu").values()}


def test_only_the_gateway_gets_the_gpu_image() -> None:
    """The base's name for the others is not one that the overlay renames."""
    assert _tagged("overlays/gpu").keys() == {"demur-gpu"}
    assert _gpu_patch()["containers/0/image"] == "demur-gpu"
    assert _gpu_patch()["containers/0/resources/limits/nvidia.com~1gpu"] == 1
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in _gpu_patch()["tolerations"]


def test_a_gateway_on_a_gpu_node_never_answers_from_the_cpu_in_silence() -> None:
    """Its configuration is the base's but for the device, which it must have or not start."""
    base, gpu = ((K8S / folder / "demur.toml").read_text() for folder in ("base", "overlays/gpu"))
    assert gpu == base.replace('device = "auto"', 'device = "cuda"') != base
    (generator,) = _kustomization("overlays/gpu")["configMapGenerator"]
    assert generator == {"name": "demur-config", "behavior": "replace", "files": ["demur.toml"]}

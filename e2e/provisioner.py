"""Volumes for claims: a StorageClass whose volumes are folders, provisioned as an external provisioner does it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from e2e.api import Api, ApiError, Object
from e2e.informer import Informer

PROVISIONER = "pagoda.dev/folders"
CLASS = "folders"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONERS = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")


def storage_class() -> Object:
    """The cluster's default class. It waits for a pod, as those of clouds do, since a volume belongs to a node."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }


class Provisioner:
    """`run` until cancelled: claims of our class get volumes, released volumes go with their folders."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._group = asyncio.TaskGroup()
        self._claims = Informer(api, "/api/v1/persistentvolumeclaims", self._claim_changed)
        self._volumes = Informer(api, "/api/v1/persistentvolumes", self._volume_changed)

    async def run(self) -> None:
        await self._api.create("/apis/storage.k8s.io/v1/storageclasses", storage_class())
        async with self._group:
            self._group.create_task(self._claims.run())
            self._group.create_task(self._volumes.run())

    def _claim_changed(self, claim: Object, gone: bool) -> None:
        notes = claim["metadata"].get("annotations", {})
        ours = any(notes.get(key) == PROVISIONER for key in STORAGE_PROVISIONERS)
        if not gone and ours and SELECTED_NODE in notes and not claim["spec"].get("volumeName"):
            self._group.create_task(self._provision(claim, notes[SELECTED_NODE]))

    def _volume_changed(self, volume: Object, gone: bool) -> None:
        ours = volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
        if not gone and ours and volume.get("status", {}).get("phase") == "Released":
            self._group.create_task(self._reclaim(volume))

    async def _provision(self, claim: Object, node: str) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        name = f"pvc-{metadata['uid']}"
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        hostname = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": spec["storageClassName"],
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    **{key: metadata[key] for key in ("namespace", "name", "uid")},
                },
                "hostPath": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}},
            },
        }
        try:
            await self._api.create("/api/v1/persistentvolumes", volume)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _reclaim(self, volume: Object) -> None:
        try:
            await self._api.delete(f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
        except ApiError as error:
            if error.code != 404:
                raise
        shutil.rmtree(volume["spec"]["hostPath"]["path"], ignore_errors=True)

"""The chart's values about where a run reads and writes: volumes, or a URL."""

from typing import Annotated, Literal

from fedctl.chart.part import Part, written
from trainer.config.base import setting

SIZE = r"^[0-9]+(\.[0-9]+)?([KMGTP]i?)?$"
URL = r"^((s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?)?$"
ENDPOINT = r"^(https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?)?$"
Size = Annotated[str, written(SIZE, "write a number and a unit, such as 10Gi")]
Url = Annotated[str, written(URL, "write s3://BUCKET/PATH or gs://BUCKET/PATH")]
Endpoint = Annotated[str, written(ENDPOINT, "write an address, such as https://s3.example:9000")]


class Volume(Part):
    """A volume of a run."""

    kind: Literal["new", "claim", "ephemeral"] = setting(
        "new",
        help="`new`: a PersistentVolumeClaim (PVC) that the chart creates; `claim`: an existing "
        "one; `ephemeral`: deleted with the pod",
    )
    claim: str = setting("", help="Name of the PVC, for `claim`")
    storage_class: str = setting("", help="StorageClass, for `new`; empty: the cluster's default")
    size: Size = setting("10Gi", help="Size, for `new`", pattern=SIZE)
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"] = setting(
        "ReadWriteMany",
        help="Access mode, for `new`; several ranks share the folder of checkpoints",
    )
    keep: bool = setting(True, help="For `new`: keep the PVC when the release is uninstalled")


class Storage(Part):
    """Where a run reads and writes."""

    url: Url = setting(
        "",
        help="Keep runs in an object store instead of a volume: `s3://BUCKET/PATH` or "
        "`gs://BUCKET/PATH`; the run's name is appended. `runs` is then a folder of each pod",
        pattern=URL,
    )
    endpoint: Endpoint = setting(
        "",
        help="Address of an S3 server other than Amazon's, such as `https://s3.example:9000`",
        pattern=ENDPOINT,
    )
    region: str = setting("", help="Region of the bucket, if the store has several")
    runs: Volume = setting(
        Volume(), help="Run folders with checkpoints, mounted at /runs and shared by all ranks"
    )
    data: Volume = setting(
        Volume.model_validate({"kind": "ephemeral", "size": "50Gi"}),
        help="Data sets, mounted at /data",
    )
    object_store_secret: str = setting(
        "",
        help="Secret whose keys become environment variables: the credentials for `url`, such as "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )

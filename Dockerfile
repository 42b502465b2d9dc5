# The image of a rank. One file, two targets: `cuda` (the default) with PyTorch's CUDA build, `cpu` without CUDA.
#
#     docker build --target cpu --tag fedctl-trainer:cpu .
#
# scripts/image does the same with whichever of podman, buildah and docker is there; docs/image.md says why each thing
# is as it is. Any Debian or Ubuntu with Python 3.11 to 3.13 and its venv module can be the base. PyTorch's wheels bring
# the CUDA libraries, so a CUDA base would have them twice. By tag and not by digest: a rebuild then has the base's latest
# security updates. What runs is pinned by the digest of the image that was built, and its SBOM says what that holds.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim

# --- what is installed: a virtual environment, from files that name each wheel by its hash --------------------------
FROM ${BASE_IMAGE} AS builder
COPY scripts/image_venv image-requirements*.txt /build/

# The secrets `pip` and `ca` are a place's own pip.conf and certificates. They are there during the command only, and a
# build that has none of its own leaves them out.
FROM builder AS cpu-venv
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=cache,target=/var/cache/pip \
    /build/image_venv cpu "${TORCH}" "${TORCH_INDEX}"

# --- what every image is before PyTorch and the trainer -------------------------------------------------------------
FROM ${BASE_IMAGE} AS runtime
# No program in here needs the rights of another user. The mount points are those of the chart's pods.
RUN echo 'fedctl:x:10001:' >>/etc/group \
    && echo 'fedctl:x:10001:10001::/tmp:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 10001 -g 10001 /runs /data \
    && install -d /etc/fedctl \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# The root is read-only and bytecode is there already; all caches are on volumes, /tmp or (downloads) /data.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/tmp \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    TRITON_CACHE_DIR=/tmp/triton \
    USER=fedctl \
    XDG_CACHE_HOME=/data
WORKDIR /tmp
USER 10001:10001
# Process 1 gets only the signals that it handles, and the trainer handles SIGTERM when it trains: while it imports or
# looks for rank 0, a pod would sit out its grace period. Single child: a tracker's own process ends after the trainer.
ENTRYPOINT ["dumb-init", "--single-child", "--", "python", "-m", "trainer"]
LABEL org.opencontainers.image.title="fedctl-trainer" \
      org.opencontainers.image.description="A rank of distributed or federated training with fedctl" \
      org.opencontainers.image.licenses="Apache-2.0"

# --- the trainer, in a layer of its own: a change of it moves kilobytes ---------------------------------------------
FROM builder AS code
COPY trainer /opt/fedtrain/trainer
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/fedtrain

# --- the targets ----------------------------------------------------------------------------------------------------
FROM runtime AS cpu
COPY --from=cpu-venv /opt/venv /opt/venv
COPY --from=code /opt/fedtrain /opt/fedtrain
ARG VERSION
ARG REVISION
ARG CREATED
ARG SOURCE
ENV FEDCTL_VERSION="${VERSION}"
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"

FROM builder AS cuda-venv
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=cache,target=/var/cache/pip \
    /build/image_venv cuda cuda

FROM runtime AS cuda
# What a GPU is used for. Not NVIDIA_VISIBLE_DEVICES=all: a pod that asks for no GPU would see every one of its node.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-venv /opt/venv /opt/venv
COPY --from=code /opt/fedtrain /opt/fedtrain
ARG VERSION
ARG REVISION
ARG CREATED
ARG SOURCE
ENV FEDCTL_VERSION="${VERSION}"
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"

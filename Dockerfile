# Two images from one file:
#
#   docker build --target operator -t pagoda-operator:0.1.0 .
#   docker build --target engine   -t pagoda-engine:0.1.0 .
#
# BASE may be any image with Python 3.11 to 3.13 as `python3`, with `pip` and `venv`.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY engine engine
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# --- operator -----------------------------------------------------------------------------------------------------------

# Dependencies are a layer of their own, which a change of our code leaves alone: the engine's are gigabytes.
FROM ${BASE} AS operator-dependencies
COPY requirements-operator.lock /
RUN python3 -m venv --without-pip /opt/pagoda \
    && python3 -m pip --python /opt/pagoda/bin/python install --no-cache-dir --require-hashes -r /requirements-operator.lock

FROM ${BASE} AS operator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pagoda-operator" \
      org.opencontainers.image.description="Turns InferenceServices into served models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=operator-dependencies /opt/pagoda /opt/pagoda
# The operator plans for GPUs and never computes on one: torch has no place here.
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python3 -m pip --python /opt/pagoda/bin/python install --no-cache-dir --no-deps --no-index /dist/*.whl \
    && /opt/pagoda/bin/pagoda operator --help >/dev/null \
    && if /opt/pagoda/bin/python -c 'import torch' 2>/dev/null; then echo 'torch got into the operator image' >&2; exit 1; fi
# The root file system is read-only in a pod; all that is ever written goes to a volume on /tmp.
ENV PATH=/opt/pagoda/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["pagoda"]

# --- engine -------------------------------------------------------------------------------------------------------------

FROM ${BASE} AS engine-dependencies
COPY requirements-engine.lock /
RUN python3 -m venv --without-pip /opt/pagoda \
    && python3 -m pip --python /opt/pagoda/bin/python install --no-cache-dir --require-hashes -r /requirements-engine.lock

FROM ${BASE} AS engine
ARG VERSION=0.1.0
ARG REVISION=unknown
# Triton compiles its launchers at run time, with this compiler and Python's headers. A BASE whose Python is Debian's
# own wants `python3-dev` here too; the check below says so.
ARG COMPILER_PACKAGES="gcc libc6-dev"
LABEL org.opencontainers.image.title="pagoda-engine" \
      org.opencontainers.image.description="Serves an LLM over an OpenAI-compatible API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ${COMPILER_PACKAGES} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && python3 -c 'import pathlib, sys, sysconfig; h = pathlib.Path(sysconfig.get_paths()["include"], "Python.h"); sys.exit(None if h.exists() else f"{h} is missing; add python3-dev to COMPILER_PACKAGES")'
COPY --from=engine-dependencies /opt/pagoda /opt/pagoda
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python3 -m pip --python /opt/pagoda/bin/python install --no-cache-dir --no-deps --no-index /dist/*.whl \
    && /opt/pagoda/bin/pagoda serve --help >/dev/null
# The CPU's kernels, for every kind of x86-64 processor that the image may meet; a pod copies them to its volume.
RUN case "$(uname -m)" in x86_64) /opt/pagoda/bin/python -m pagoda_engine.model.fused.precompile ;; esac
# Compiled kernels (Triton, Numba, Inductor) go below HOME and XDG_CACHE_HOME, a writable volume of the pod. LOGNAME is
# asked for where the pod's user is not in /etc/passwd.
ENV PATH=/opt/pagoda/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    LOGNAME=pagoda \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
EXPOSE 8000
ENTRYPOINT ["pagoda"]

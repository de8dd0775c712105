# The server's image: the server, its runtime dependencies, and nothing else. See docs/deployment.md.
#
#   make image            chooses a base image, builds without network access, prints the size of each part
#   docker build .        builds on python:3.12-slim with packages from the package index
#
# BASE: an image of Debian 12, Ubuntu 24.04 or newer, with Python 3.11 or newer.
# PACKAGES: a folder made by dev/image_packages.py in the build context, for a base without pip or access to an index.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG STAGE=""
LABEL python-executor.stage="${STAGE}"
ARG PACKAGES=""
COPY . /source
RUN ["/bin/sh", "-c", "cd /source && python3 dev/rootfs.py /source /image $PACKAGES && mkdir /data"]

FROM scratch
COPY --from=build /image/ /
COPY --from=build --chown=10001:10001 /data/ /data/
ENV PATH=/opt/python-executor/bin:/usr/local/bin:/usr/bin \
    LANG=C.UTF-8 \
    PYTHONUTF8=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PYEXEC_HOST=0.0.0.0 \
    PYEXEC_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
USER 10001:10001
WORKDIR /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["/opt/python-executor/bin/python3", "-m", "pyexec.health"]
ENTRYPOINT ["python-executor-server"]
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.title="python-executor" \
      org.opencontainers.image.description="Runs untrusted Python code in disposable Docker sandboxes" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/python-executor/python-executor" \
      org.opencontainers.image.licenses="MIT"

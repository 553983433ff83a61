# The manager as an image; docs/install.md says how it is run, and what it needs of the host.
#
# What it is made from is pinned by full version. To pin by digest, or to build where there is no registry, name other images:
#   docker build --build-arg BASE_IMAGE=debian@sha256:... .
ARG GO_IMAGE=golang:1.26.8-bookworm
ARG BASE_IMAGE=debian:12.15-slim

FROM ${GO_IMAGE} AS build
WORKDIR /src
# What others wrote changes less often than what we write: it is fetched in a layer of its own.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
# With a C compiler, for the GPUs' library.
RUN CGO_ENABLED=1 make build VERSION="${VERSION}" && deploy/licences.sh >copyright

FROM ${BASE_IMAGE}
# Authorities for amqps://, and mke2fs for scratch directories of a bounded size. A base that has them needs no network.
RUN if ! [ -e /etc/ssl/certs/ca-certificates.crt ] || ! command -v mke2fs >/dev/null; then \
		apt-get update && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates e2fsprogs && \
		rm -rf /var/lib/apt/lists/*; \
	fi
COPY --from=build /src/copyright /usr/share/doc/mayfly/copyright
COPY --from=build /src/mayfly /usr/bin/mayfly
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mayfly" \
	org.opencontainers.image.description="A fresh, short-lived worker for every task from a queue" \
	org.opencontainers.image.source="https://github.com/mayfly/mayfly" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="${VERSION}" \
	org.opencontainers.image.revision="${REVISION}"
# The manager is root: it takes root's means to give each worker a user of its own, its limits and its mounts, and to speak to Docker. No
# worker is root.
USER root
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/usr/bin/mayfly", "info"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/mayfly"]
CMD ["run"]

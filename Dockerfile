# gpufleet's images, each with what its program imports. The default target contains all three programs.
#   docker build --target agent --tag gpufleet-agent:dev .
#   docker build --target operator --tag gpufleet-operator:dev .
#   docker build --target cli --tag gpufleet-cli:dev .
#   docker build --tag gpufleet:dev .
# No syntax line and no here-documents: Debian's Docker 20.10 builds it with its own frontend.
# A release sets BASE to a digest, and VERSION and REVISION.
ARG BASE=debian:bookworm-slim

FROM $BASE AS tools
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-minimal libpython3-stdlib python3-venv \
 && python3 -m venv /uv \
 && /uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
# As pip of Debian: certificates of a company's proxy in the base image hold for uv, too.
ENV UV_SYSTEM_CERTS=1
WORKDIR /source
COPY docker docker
# The dependencies first: an edit of our code leaves their layers as they are.
COPY pyproject.toml uv.lock README.md LICENSE ./

FROM tools AS agent-dependencies
RUN sh docker/install.sh dependencies agent
FROM tools AS operator-dependencies
RUN sh docker/install.sh dependencies operator
FROM tools AS cli-dependencies
RUN sh docker/install.sh dependencies cli
FROM tools AS all-dependencies
RUN sh docker/install.sh dependencies agent operator cli

FROM tools AS source
COPY cli cli
COPY common common
COPY crds crds
COPY nodeagent nodeagent
COPY operator operator

FROM source AS agent-code
RUN sh docker/install.sh code common crds nodeagent -- gpufleet-agent
FROM source AS operator-code
RUN sh docker/install.sh code common crds operator -- gpufleet-operator
FROM source AS cli-code
RUN sh docker/install.sh code common crds operator cli -- gpufleet kubectl-gpufleet kubectl_complete-gpufleet
FROM source AS all-code
RUN sh docker/install.sh code common crds operator cli nodeagent \
      -- gpufleet gpufleet-agent gpufleet-operator kubectl-gpufleet kubectl_complete-gpufleet

FROM $BASE AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-minimal libpython3-stdlib libstdc++6 media-types \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && echo 'nonroot:x:65532:65532:nonroot:/:/bin/sh' >> /etc/passwd \
 && echo 'nonroot:x:65532:' >> /etc/group
# Nothing multiplies large matrices: by default, each import of numpy starts a thread per core of the node, which spins.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1 LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
USER 65532:65532

FROM python AS agent
COPY --from=agent-dependencies /image /
COPY --from=agent-code /image /
LABEL org.opencontainers.image.title=gpufleet-agent
CMD ["gpufleet-agent", "--help"]

FROM python AS operator
COPY --from=operator-dependencies /image /
COPY --from=operator-code /image /
LABEL org.opencontainers.image.title=gpufleet-operator
CMD ["gpufleet-operator", "--help"]

FROM python AS cli
COPY --from=cli-dependencies /image /
COPY --from=cli-code /image /
LABEL org.opencontainers.image.title=gpufleet-cli
CMD ["gpufleet", "--help"]

FROM python AS all
COPY --from=all-dependencies /image /
COPY --from=all-code /image /
LABEL org.opencontainers.image.title=gpufleet
CMD ["gpufleet", "--help"]

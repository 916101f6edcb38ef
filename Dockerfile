# syntax=docker/dockerfile:1
# gpufleet: agent, operator and command line in one image; the command says which.
#   docker build --tag localhost/gpufleet:dev .
# The test bed builds the same content without Docker (testbed/gpufleet_testbed/images).

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-minimal libpython3-stdlib python3-venv \
 && python3 -m venv /uv \
 && /uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
WORKDIR /source
# The dependencies first: an edit of our code leaves their layer as it is.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN /uv/bin/uv export --locked --no-dev --no-emit-project --no-header \
      --extra operator --extra agent --extra cli --output-file /requirements.txt \
 && /uv/bin/uv pip install --python /usr/bin/python3 --no-deps --require-hashes --only-binary=:all: \
      --link-mode=copy --target /dependencies --requirements /requirements.txt \
 && rm -rf /dependencies/bin \
 && find /dependencies/numpy -type d '(' -name tests -o -name include ')' -prune -exec rm -r '{}' + \
 && find /dependencies -name '*.pyi' -delete \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -s /dependencies \
      -p /usr/local/lib/python3.11/dist-packages /dependencies
COPY cli cli
COPY common common
COPY crds crds
COPY nodeagent nodeagent
COPY operator operator
RUN /uv/bin/uv build --quiet --wheel --out-dir /wheel . \
 && /uv/bin/uv pip install --python /usr/bin/python3 --no-deps --link-mode=copy --target /code /wheel/*.whl \
 && rm -rf /code/bin \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -s /code \
      -p /usr/local/lib/python3.11/dist-packages /code \
 && mkdir /commands \
 && while read -r name module; do \
      printf '#!/usr/bin/python3\nimport sys\n\nfrom %s import main\n\nsys.exit(main())\n' "$module" > "/commands/$name"; \
      chmod 755 "/commands/$name"; \
    done <<'COMMANDS'
gpufleet gpufleet_cli.main
gpufleet-agent gpufleet_agent.main
gpufleet-operator gpufleet_operator.main
kubectl-gpufleet gpufleet_cli.main
kubectl_complete-gpufleet gpufleet_cli.kubectl_complete
COMMANDS

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-minimal libpython3-stdlib libstdc++6 media-types \
 && rm -rf /var/lib/apt/lists/* \
 && echo 'nonroot:x:65532:65532:nonroot:/:/bin/sh' >> /etc/passwd \
 && echo 'nonroot:x:65532:' >> /etc/group
COPY --from=build /dependencies /usr/local/lib/python3.11/dist-packages
COPY --from=build /code /usr/local/lib/python3.11/dist-packages
COPY --from=build /commands /usr/local/bin
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL org.opencontainers.image.title=gpufleet org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
CMD ["gpufleet", "--help"]

FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links=/wheels quorl
# The directory exists with its owner before the volume is laid over it, so that a new volume belongs to quorl.
RUN useradd --system --uid 10001 --create-home quorl && install -d -o quorl -g quorl -m 700 /var/lib/quorl
USER quorl
WORKDIR /home/quorl
VOLUME /var/lib/quorl
EXPOSE 7101 7201
STOPSIGNAL SIGTERM
# Of a node, which is what the image runs unless it is told otherwise; a worker needs another one, see docker-compose.yml.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["quorl", "node", "status", "--ready", "-q"]
CMD ["quorl", "node", "run", "--config", "/etc/quorl/node.toml"]

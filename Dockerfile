# The server (default), the client, and backstream's commands, each as an image without shell
# tools of its own:
#   docker build -t exposr-server .
#   docker build -t exposr --target client .
#   docker build -t backstream --target backstream .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/exposr
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY exposr_tx exposr_tx
COPY twisted twisted
# With the Rego engine, 14 MB, for --policy. twistd writes its plugin cache now: later the root is
# read-only.
RUN /opt/exposr/bin/pip install --no-cache-dir '.[rego]' && /opt/exposr/bin/twistd --help >/dev/null

FROM python:3.11-slim-bookworm AS runtime
COPY --from=build /opt/exposr /opt/exposr
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin exposr \
    && install -d -o exposr -g exposr /var/lib/exposr
ENV PATH=/opt/exposr/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
USER 10001

FROM runtime AS client
ENTRYPOINT ["exposr"]

FROM runtime AS backstream
COPY --from=build /opt/exposr/bin/backstream /backstream
ENV BACKSTREAM_ADDR=0.0.0.0:8000 \
    BACKSTREAM_LOG_FORMAT=json
EXPOSE 8000
ENTRYPOINT ["/backstream"]

FROM runtime AS server
# Only this folder is ever written to, and only with EXPOSR_STORAGE_URL=sqlite://exposr.db
WORKDIR /var/lib/exposr
VOLUME /var/lib/exposr
ENV EXPOSR_ADMIN_ENABLE=true \
    EXPOSR_ADMIN_INTERFACE=::
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('EXPOSR_ADMIN_PORT', '8081') + '/ping', timeout=4)"]
ENTRYPOINT ["twistd", "-n", "--pidfile=", "exposr"]

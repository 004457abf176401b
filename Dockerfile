# syntax=docker/dockerfile:1
# deop with its light install, without torch, for x86-64 and ARM:
#   docker build -t deop .
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" deop segment photo.jpg --classes "cat, wall"
# With the server as well (docs/deployment.md):
#   docker build --target serve -t deop-serve .
#   docker run --rm -p 8000:8000 -e DEOP_TOKEN="$DEOP_TOKEN" deop-serve
# .ci/dockerfile.py runs these steps without an engine.

FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
# The environment has no pip of its own: nothing is installed in it later.
RUN python -m venv --without-pip /opt/deop \
    && python -m pip --python /opt/deop/bin/python install --no-cache-dir -c constraints.txt .

FROM build AS build-serve
# With torch, for every model: --build-arg EXTRAS=serve,torch
ARG EXTRAS=serve
RUN python -m pip --python /opt/deop/bin/python install --no-cache-dir -c constraints.txt ".[$EXTRAS]"

FROM python:3.13-slim-trixie AS serve
COPY --from=build-serve /opt/deop /opt/deop
ENV PATH=/opt/deop/bin:$PATH \
    DEOP_CACHE=/tmp/deop-cache
WORKDIR /data
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://localhost:8000/readyz', timeout=2)"]
ENTRYPOINT ["deop"]
CMD ["serve", "--host", "0.0.0.0"]

FROM python:3.13-slim-trixie
COPY --from=build /opt/deop /opt/deop
# The cache is writable for any user; without a home directory, configuration is read from deop.toml in /data only.
ENV PATH=/opt/deop/bin:$PATH \
    DEOP_CACHE=/tmp/deop-cache
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["deop"]
CMD ["--help"]

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
COPY locks ./locks
# What builds the wheel stays in this stage. The environment that is copied has no pip: nothing is installed in it later.
RUN python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir --require-hashes -r locks/build.txt \
    && python -m venv --without-pip /opt/deop \
    && python -m pip --python /opt/deop/bin/python install --no-cache-dir --no-deps --require-hashes -r locks/base.txt
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN /opt/build/bin/python -m pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /source/dist . \
    && python -m pip --python /opt/deop/bin/python install --no-cache-dir --no-deps /source/dist/*.whl

FROM build AS build-serve
# With torch, for every model: --build-arg EXTRAS=serve,torch. Its libraries are those of constraints.txt, without hashes.
ARG EXTRAS=serve
RUN python -m pip --python /opt/deop/bin/python install --no-cache-dir --no-deps --require-hashes -r locks/serve.txt \
    && python -m pip --python /opt/deop/bin/python install --no-cache-dir -c constraints.txt "$(ls /source/dist/*.whl)[$EXTRAS]"

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

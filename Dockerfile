# syntax=docker/dockerfile:1
# deop with its light install, without torch, for x86-64 and ARM:
#   docker build -t deop .
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" deop segment photo.jpg --classes "cat, wall"
# .ci/dockerfile.py runs these steps without an engine.

FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
# The environment has no pip of its own: nothing is installed in it later.
RUN python -m venv --without-pip /opt/deop \
    && python -m pip --python /opt/deop/bin/python install --no-cache-dir -c constraints.txt .

FROM python:3.13-slim-trixie
COPY --from=build /opt/deop /opt/deop
# The cache is writable for any user; without a home directory, configuration is read from deop.toml in /data only.
ENV PATH=/opt/deop/bin:$PATH \
    DEOP_CACHE=/tmp/deop-cache
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["deop"]
CMD ["--help"]

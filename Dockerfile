# One image for every part of Longshore: docker run … longshore api|git|gateway|worker|beat|migrate.
# BASE_IMAGE: any Debian or Ubuntu with Python 3.11 or newer, pip and venv.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client ca-certificates iptables \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/longshore
# The dependencies first: a change of Longshore alone does not install them again.
COPY requirements.lock pyproject.toml README.md ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock
COPY api api
COPY cli cli
COPY migrations migrations
COPY shared shared
COPY workers workers
COPY requirements-dev.lock ./
# Only this step needs setuptools, in the version of the development lock.
RUN sed -n '/^setuptools==/,/# via/p' requirements-dev.lock > setuptools.lock \
    && .venv/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement setuptools.lock \
    && .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && .venv/bin/pip uninstall --yes setuptools \
    && rm requirements-dev.lock setuptools.lock \
    && useradd --uid 10001 --create-home --home-dir /var/lib/longshore longshore

ENV PATH=/opt/longshore/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LONGSHORE_DATA_DIR=/var/lib/longshore \
    LONGSHORE_HOST=0.0.0.0 \
    LONGSHORE_LOG_FORMAT=json
USER longshore
VOLUME /var/lib/longshore
EXPOSE 8080
ENTRYPOINT ["longshore"]
CMD ["--help"]

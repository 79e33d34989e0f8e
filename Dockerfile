# Two stages: the first installs the package and makes the bundled corpus, the second holds only what runs.
# Everything that needs a network happens here; `docker compose up` then trains and serves without one.
# tests/service/image.py runs these steps without Docker.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY jose_embed ./jose_embed
COPY service ./service
COPY data/make_corpus.py ./data/make_corpus.py
RUN /opt/venv/bin/pip install -c constraints.txt ".[service]"
# The docstrings of Python and of the installed packages: real text, made where it is needed.
RUN mkdir -p /opt/corpus && /opt/venv/bin/python data/make_corpus.py --output /opt/corpus/corpus.txt && rm /opt/corpus/corpus.tsv

FROM python:${PYTHON}-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 JOSE_CACHE_DIR=/cache
# A named volume takes its first contents and its owner from the directory it is mounted over.
RUN groupadd --gid 10001 jose && useradd --uid 10001 --gid 10001 --no-create-home jose && mkdir -p /corpus /models /documents /cache && chown 10001:10001 /models /documents /cache
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/corpus/ /corpus/
WORKDIR /models
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["jose-serve", "healthcheck"]
CMD ["jose-serve", "/models/corpus.jose"]

# Two stages: the first installs packages and makes the bundled corpus, the second holds only what runs.
# Everything that needs a network happens here; `docker compose up` then trains and serves without one.
# tests/service/image.py runs these steps without Docker.

ARG PYTHON=3.11.15-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# What runs has no pip; the environment that builds has it, and the build backend.
RUN python -m venv --without-pip /opt/venv
RUN python -m venv /opt/build
# Dependencies have a layer of their own: a changed line of source installs none of them again.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["service"], sep="\n")' > requirements.txt
RUN /opt/build/bin/pip install -c constraints.txt hatchling && \
    /opt/build/bin/pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt && \
    find /opt/venv/lib -type d \( -name test -o -name tests \) -prune -exec rm -r {} +
# The docstrings of Python and of the installed packages: real text, made where it is needed.
COPY data/make_corpus.py ./data/make_corpus.py
RUN mkdir -p /opt/corpus && /opt/venv/bin/python data/make_corpus.py --output /opt/corpus/corpus.txt && rm /opt/corpus/corpus.tsv
COPY README.md LICENSE ./
COPY jose_embed ./jose_embed
COPY service ./service
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheel . && \
    /opt/build/bin/pip --python /opt/venv/bin/python install --no-deps --no-index /opt/wheel/*.whl

FROM python:${PYTHON}
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 JOSE_CACHE_DIR=/cache
RUN rm -rf /usr/local/lib/python3.*/site-packages /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* /usr/local/bin/wheel
# A named volume takes its first contents and its owner from the directory it is mounted over.
RUN groupadd --gid 10001 jose && useradd --uid 10001 --gid 10001 --no-create-home jose && mkdir -p /corpus /models /documents /cache && chown 10001:10001 /models /documents /cache
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/corpus/ /corpus/
WORKDIR /models
USER 10001:10001
EXPOSE 8080
# While it starts it is asked each second, then each ten.
HEALTHCHECK --interval=10s --timeout=6s --start-period=600s --start-interval=1s CMD ["jose-serve", "healthcheck"]
CMD ["jose-serve", "/models/corpus.jose"]

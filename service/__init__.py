"""The service: a trained model behind HTTP, with exact neighbours, vectors for any text, and a store of documents.

``create_app(settings)`` makes the FastAPI application, ``jose-serve`` runs it. Each file is one noun::

    settings    what the environment says
    problems    every error, as RFC 9457 says it
    schemas     requests and answers, for OpenAPI
    body        JSON read in slices, so that a large one blocks nobody
    texts       texts read in slices, for the same reason
    index       FAISS, exact or HNSW (the only file that imports it)
    words       the vocabulary by spelling
    library     the searchable documents: immutable pieces, swapped
    store       SQLite, the truth about documents
    bundle      one model with all that is derived from it
    questions   from directions to the words or documents beside them
    lanes       bounded queues before a few threads
    engine      holds the above together; every call ends here
    access      keys and hosts
    metrics     Prometheus
    garbage     cyclic garbage and large things, done away with at quiet moments
    route       what all calls share
    calls/      the calls of the API, one file a subject
    app         the application around the calls
    protocol    uvicorn's connection, with a bound for heads
    server      uvicorn that drains before it stops
    cli         jose-serve
"""

from __future__ import annotations

"""The service: a trained model behind HTTP, with exact neighbours, vectors for any text, and a store of documents.

``create_app(settings)`` makes the FastAPI application, ``jose-serve`` runs it::

    settings    read from the environment
    problems    every error, as RFC 9457 problem documents
    search/     the served model (served_model), its indexes (index: FAISS, exact or HNSW), the added documents as
                immutable pieces (library), queries to both (queries), the vocabulary by prefix (prefix_index), vectors
                of texts (texts)
    engine/     queries to a snapshot (serving), changes of documents (writing), the reload of the model (reloading),
                readiness and figures (status, metrics), SQLite (store), queues before threads (lanes)
    web/        HTTP: the server, connections, bodies, keys, schemas, what all calls share
    calls/      the calls of the API, one file per subject
    app         the application around the calls
    cli         jose-serve
"""

from __future__ import annotations

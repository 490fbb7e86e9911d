"""PostgreSQL with pgvector and an int8 folder: what is nearest there is what is nearest by encode()."""

# /// script
# dependencies = ["pgserver==0.1.4", "psycopg[binary]", "pgvector"]
# [tool.client]
# consumer = "postgresql"
# nul = false
# folder = "int8"
# base = true
# atol = 0.05
# ///

import json
import os
import sys
import tempfile

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

import sbertconv

folder, asked, answer = sys.argv[1:]
try:
    import pgserver

    place = tempfile.mkdtemp(dir="/tmp")
    server = pgserver.get_server(place, cleanup_mode="delete")
except Exception as error:
    json.dump({"skipped": f"the server of pgserver does not start: {str(error)[:200]}"}, open(answer, "w"))
    sys.exit()
model, texts = sbertconv.load(folder), json.load(open(asked))
vectors = model.encode(texts)
with psycopg.connect(server.get_uri(), autocommit=True) as connection:
    version = connection.execute("SHOW server_version").fetchone()[0].split()[0]
    connection.execute("CREATE EXTENSION vector")
    register_vector(connection)
    connection.execute("CREATE TABLE texts (id int, body text, vector vector(384))")
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        connection.execute("INSERT INTO texts VALUES (%s, %s, %s)", (number, text, vector))
    for query in vectors:
        rows = connection.execute("SELECT id FROM texts ORDER BY vector <=> %s, id LIMIT 3", (query,)).fetchall()
        close = np.sort(vectors @ query)[::-1][2] - 1e-5  # texts cut to the same tokens are equally near
        assert all(vectors[row[0]] @ query >= close for row in rows)
    stored = connection.execute("SELECT vector FROM texts ORDER BY id").fetchall()
server.cleanup()
found = [np.asarray(row[0].to_numpy() if hasattr(row[0], "to_numpy") else row[0]).tolist() for row in stored]
json.dump({"version": version, "vectors": found}, open(answer, "w"))
assert os.path.isfile(answer)

"""DuckDB: the packed functions.py and search.sql, and the vectors that lie in the table then."""

# /// script
# dependencies = ["duckdb==2.0.1", "pyarrow", "numpy", "onnxruntime"]
# [tool.client]
# consumer = "duckdb"
# folder = "text"
# ///

import json
import sys
from pathlib import Path

folder, asked, answer = sys.argv[1:]
sys.path.insert(0, f"{folder}/duckdb")
import duckdb  # noqa: E402
from functions import register  # noqa: E402

database = duckdb.connect()
register(database)
script = Path(folder, "duckdb/search.sql").read_text().split(";")
database.execute(script[0])
texts = json.load(open(asked))
database.executemany("INSERT INTO texts VALUES (?, NULL)", [[text] for text in texts])
database.execute(script[1])
best = database.execute(script[2]).fetchall()
assert len(best) == 3
rows = dict(database.execute("SELECT body, vector FROM texts").fetchall())
json.dump({"version": duckdb.__version__, "vectors": [list(rows[text]) for text in texts]}, open(answer, "w"))

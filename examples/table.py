"""Embeds a small Parquet table with the command line and prints the schema of what comes out.

Usage: table.py <the sbertconv command> <a converted folder> <a folder to work in>
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

command, model, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
shutil.rmtree(work, ignore_errors=True)
(work / "rows").mkdir(parents=True)
texts = ["How do I reset my password?", "I forgot my login.", None, "The soup is cold.", "I forgot my login."]
pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), work / "rows" / "part-0.parquet")
given = [command, "encode", model, "--input", f"{work}/rows/*.parquet", "--output", f"{work}/embedded/"]
subprocess.run(given, check=True)
table = ds.dataset(work / "embedded").to_table()
print(table.schema.remove_metadata())
print(json.dumps(json.loads(table.schema.metadata[b"sbertconv"]), indent=2))
print(f"{table.num_rows} rows, {table.column('embedding').null_count} without a text")
subprocess.run(given, check=True)  # nothing is left to do

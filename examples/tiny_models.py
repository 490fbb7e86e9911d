"""Save a tiny random model of every class that the parity table has, and print where each is.

Usage: python tiny_models.py <folder>
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from class_cases import CLASSES


def main(here: Path) -> None:
    """The first row of each class, under the class's name."""
    for name, rows in CLASSES.items():
        where = here / name
        model = next(iter(rows.rows.values()))()
        if isinstance(model, Path):
            shutil.copytree(model, where, dirs_exist_ok=True)
        else:
            model.save_pretrained(str(where))
        print(where)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

import subprocess
import sys

PROGRAM = """
import sys
import pyarrow
from finetune.corpus.skip_pandas import skip_pandas
skip_pandas()
pyarrow.array(["a"])
assert "pandas" not in sys.modules
assert pyarrow.table({"a": [1]}).to_pandas()["a"].tolist() == [1]
"""


def test_pandas_is_imported_only_when_it_is_asked_for() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)

"""The packages of an extra of setup.cfg, `test` unless named, for `pip install`: the tests run the tree as it is."""

import configparser
import sys
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).resolve().parent.parent / "setup.cfg")
print(
    " ".join(config["options.extras_require"][sys.argv[1] if len(sys.argv) > 1 else "test"].split())
)

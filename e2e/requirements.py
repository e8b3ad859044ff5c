"""The packages of an extra of setup.cfg, `test` unless named, a line each for `pip install -r`.

The tests run the tree as it is, so only what stands beside the product is installed.
"""

import configparser
import sys
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).resolve().parent.parent / "setup.cfg")
extra = sys.argv[1] if len(sys.argv) > 1 else "test"
print(config["options.extras_require"][extra].strip())

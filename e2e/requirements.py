"""The packages of setup.cfg's `test` extra, for `pip install`: the tests run the tree as it is, nothing is installed of it."""
import configparser
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).resolve().parent.parent / "setup.cfg")
print(" ".join(config["options.extras_require"]["test"].split()))

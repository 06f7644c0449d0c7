import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import helper
from modules.marks import MARK


def apply(input):
    return helper.upper(input) + MARK

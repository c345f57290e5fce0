"""Imports OpenVINO without what reports to its makers."""

import sys
from types import ModuleType

# Converts models of other kinds, and sends each import of openvino to an analytics server, with a
# number that it writes into ~/intel. Importing it takes longer than all the rest.
_CONVERTER = "openvino.tools.ovc"


def load() -> ModuleType:
    """Imports OpenVINO without its converter, unless the caller's program has imported it before.

    The converter itself can be imported afterwards, but is no attribute of the package.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    sys.modules[_CONVERTER] = None  # openvino ignores that this cannot be imported
    try:
        import openvino
    finally:
        del sys.modules[_CONVERTER]
    return openvino

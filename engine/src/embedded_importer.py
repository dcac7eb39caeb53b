"""Imports the Python sources that are embedded in the engine. Run once, before anything else is imported."""

import importlib.machinery
import linecache
import marshal
import sys
import types
from importlib._bootstrap_external import MAGIC_NUMBER


class EmbeddedImporter:
    """Finds and loads modules of one table.

    Without the base classes of `importlib.abc`, whose import would slow every start most of all.
    """

    def __init__(self, table: dict) -> None:
        self._table = table

    def find_spec(self, fullname, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for an embedded module."""
        entry = self._table.get(fullname)
        if entry is None:
            return None
        file, is_package, *_ = entry
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=file, is_package=is_package)
        spec.has_location = True  # gives the module a __file__, by which the glue knows its own frames
        return spec

    def create_module(self, spec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module) -> None:
        """Run the module's code."""
        exec(self.get_code(module.__spec__.name), module.__dict__)

    def is_package(self, fullname) -> bool:
        """Whether the module is a package."""
        return self._table[fullname][1]

    def get_source(self, fullname) -> str:
        """Return the module's source text."""
        return self._table[fullname][2]

    def get_code(self, fullname) -> types.CodeType:
        """Return the code, which has the module's embedded name, by which tracebacks know it."""
        file, _, source, code = self._table[fullname]
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        if code.startswith(MAGIC_NUMBER):
            return marshal.loads(memoryview(code)[len(MAGIC_NUMBER) :])
        # Built with another patch release whose bytecode differs, as between pre-releases.
        return compile(source, file, "exec", dont_inherit=True)


def install(modules) -> None:
    """Put the runtime in front of everything and spare copies of other packages behind everything.

    Parameters
    ----------
    modules
        (module, file, is_package, source, code) of each embedded module.
    """
    own, spare = {}, {}
    for module, file, is_package, source, code in modules:
        table = own if module.split(".")[0] == "ipengine" else spare
        table[module] = (f"<ipengine>/{file}", bool(is_package), source, code)
    sys.meta_path.insert(0, EmbeddedImporter(own))
    sys.meta_path.append(EmbeddedImporter(spare))

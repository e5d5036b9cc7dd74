"""Who imports whom, all of the package together."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also not for type checking, nor within a function."""
    graph = grimp.build_graph("geventpool", cache_dir=None, exclude_type_checking_imports=False)
    assert len(graph.modules) > 100
    imported = {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}
    TopologicalSorter(imported).prepare()  # raises a CycleError, which has the circle

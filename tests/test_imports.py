"""The import rules of docs/design.md are checked on the import graph."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "deop"


def imports_of(file):
    """(module, whether the import is inside a function) for every import of a file that runs."""
    imports = []

    def visit(node, inside_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                imports.extend((alias.name, inside_function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    path = SOURCE.parent / Path(*child.module.split("."), alias.name)
                    is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
                    imports.append((f"{child.module}.{alias.name}" if is_module else child.module, inside_function))
            visit(child, inside_function or isinstance(child, ast.FunctionDef))

    visit(ast.parse(file.read_text(encoding="utf-8")), False)
    return imports


def module_graph():
    """Each module of deop, and the modules of deop that it imports anywhere."""
    graph = {}
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {name for name, _ in imports_of(file) if name.startswith("deop.")}
    return graph


def package_graph():
    """The same between sub-packages; a module of the top level, such as deop.model, counts as a sub-package."""
    graph = {}
    for module, imports in module_graph().items():
        package = ".".join(module.split(".")[:2])
        graph.setdefault(package, set()).update({".".join(name.split(".")[:2]) for name in imports} - {package})
    return graph


def assert_no_cycle(graph):
    done = set()

    def visit(node, path):
        assert node not in path, f"import cycle: {' -> '.join([*path[path.index(node) :], node])}"
        if node not in done:
            for target in sorted(graph.get(node, ())):
                visit(target, [*path, node])
            done.add(node)

    for node in graph:
        visit(node, [])


def test_modules_have_no_import_cycle():
    assert_no_cycle(module_graph())


def test_sub_packages_have_no_import_cycle():
    assert_no_cycle(package_graph())


def test_a_cycle_is_found():
    with pytest.raises(AssertionError, match="b -> c -> b"):
        assert_no_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def test_encoders_and_proposals_do_not_know_each_other():
    graph = package_graph()
    assert "deop.proposals" not in graph["deop.encoders"]
    assert "deop.encoders" not in graph["deop.proposals"]


def test_only_main_imports_the_command_line():
    graph = package_graph()
    assert [package for package, imports in graph.items() if "deop.cli" in imports] == ["deop.__main__"]


def test_transformers_is_imported_inside_functions():
    for file in SOURCE.rglob("*.py"):
        assert not any(name.startswith("transformers") and not inside for name, inside in imports_of(file)), file

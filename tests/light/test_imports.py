"""What the base install imports, and the modules that need more."""

import sys

from deop.dependencies import EXTRAS
from tests.light.conftest import COMMAND

NEEDS_SERVE = ("serving",)
"""Those that need the extra "serve"."""
NEEDS_TORCH = ("bench", "encoders", "export", "model", "networks", "proposals", "regions", "training", "weights")
"""Sub-packages and modules of deop that may import torch at the top of a file. Of ``data``, the modules of training."""
TRAINING_DATA = ("data.augment", "data.samples")

WALK = """
import importlib, json, pkgutil
import deop
failed = {}
for module in pkgutil.walk_packages(deop.__path__, "deop."):
    if module.name != "deop.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            failed[module.name.removeprefix("deop.")] = error.name
print(json.dumps(failed))
"""


def test_modules_of_the_base_install_import_without_torch(program):
    import json

    process = program(WALK)
    assert process.returncode == 0, process.stderr
    failed = json.loads(process.stdout)
    for_server = {name: failed.pop(name) for name in list(failed) if name.split(".")[0] in NEEDS_SERVE}
    server = {library for library, extra in EXTRAS.items() if extra == "serve"} | {"starlette", "pydantic", "h11"}
    assert {library.partition(".")[0] for library in for_server.values()} <= server
    others = {name for name in failed if name.split(".")[0] not in NEEDS_TORCH and name not in TRAINING_DATA}
    assert not others, "these modules must import on the base install"
    assert "model" in failed, "the libraries are hidden"
    assert {library.partition(".")[0] for library in failed.values()} <= {"torch", "scipy", "safetensors", "onnx"}


def test_modules_that_both_engines_use_import_without_torch(program):
    names = (
        "networks.devices",
        "networks.threads",
        "networks.memory",
        "weights.hub",
        "weights.locations",
        "export.web",
        "bench",
    )
    process = program(
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(f'deop.{name}')", *names
    )
    assert process.returncode == 0, process.stderr


def test_a_command_loads_no_library_that_it_does_not_need(deop, program, photo):
    """Also where they are installed: torch alone takes longer to import than the command."""
    code = COMMAND.replace("main()\n", "try:\n    main()\nfinally:\n    print(*sys.modules)\n")
    process = program("for name in list(sys.modules): sys.modules[name] or sys.modules.pop(name)\n" + code,
                      "segment", photo, "-c", "cat, background", "--quiet")  # fmt: skip
    assert process.returncode == 0, process.stderr
    loaded = {name.partition(".")[0] for name in process.stdout.split()}
    assert "onnxruntime" in loaded
    heavy = {"torch", "scipy", "transformers", "safetensors", "huggingface_hub", "jinja2", "onnx", "matplotlib", "av"}
    assert not loaded & heavy


def test_help_loads_neither_numpy_nor_onnxruntime(program):
    code = COMMAND.replace("main()\n", "try:\n    main()\nfinally:\n    print('MODULES', *sys.modules)\n")
    process = program(code, "--help")
    loaded = {name.partition(".")[0] for name in process.stdout.split("MODULES")[1].split()}
    assert not loaded & {"numpy", "onnxruntime", "PIL"}
    assert sys.version_info >= (3, 11)


def test_public_names_that_need_torch_say_so(program):
    process = program("import deop\ntry: deop.DeOP\nexcept ImportError as error: print(type(error).__name__, error)")
    assert process.stdout.startswith("MissingDependencyError deop.DeOP needs torch")
    assert 'pip install "deop[torch]"' in process.stdout
    for name in ("Segment", "Segmentation", "Vocabulary", "load"):
        process = program(f"import deop\nprint(deop.{name}.__name__)")
        assert process.stdout.strip() == name, process.stderr

"""The architecture as tests: what the packages are, who imports what, what the tree may not say, what it may depend on."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("proxy", "mounter", "catalog", "api", "appliance")

# Libraries that one module each may import, so that one place knows their traps. Where a part of the tree is named, that
# module lies there. libvirt_qemu is libvirt's second half.
VENDORS = {
    "libvirt": "proxy/hypervisor/",
    "libvirt_qemu": "proxy/hypervisor/",
    "nbd": "proxy/transport/",
    "guestfs": "mounter/",
    "proxy.transport.iscsi._libiscsi": "proxy/transport/iscsi/",
    "nbdkit": "mounter/",
    "boto3": "proxy/repository/",
    "botocore": "proxy/repository/",
    "dbos": "appliance/",
    "segno": "appliance/",
    "tomlkit": "appliance/",
    "psutil": "",
    "pyVmomi": "proxy/hypervisor/",
    "pytsk3": "mounter/tsk/",
    "croniter": "appliance/jobs/",
    "apprise": "appliance/telling/",
    "prometheus_client": "appliance/telling/",
    "jinja2": "api/templates.py",
    "yaml": "appliance/",
    "msgspec": "proxy/repository/",
}

IGNORED = {".git", ".venv", "__pycache__", "build", "dist", ".hypothesis", ".import_linter_cache"} | {
    f".{tool}_cache" for tool in ("mypy", "ruff", "pytest")
}

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
REASON = "Longer than 400 lines:"


@cache
def tree() -> tuple[Path, ...]:
    """Every file of the project, whether committed yet or not; what is ignored (caches, builds) is not of it."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:  # an unpacked archive: nothing was built in it
        every = (path for path in ROOT.rglob("*") if not IGNORED.intersection(path.relative_to(ROOT).parts))
        return tuple(sorted(path for path in every if path.is_file() and path.suffix not in {".so", ".pyc"}))
    # The user that runs the tests need not be the one that owns the checkout.
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True)
    files = (ROOT / name.decode() for name in listed.stdout.split(b"\0") if name)
    return tuple(sorted(file for file in files if file.is_file()))


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def modules() -> list[Path]:
    return [file for file in tree() if file.suffix == ".py" and file.relative_to(ROOT).parts[0] in PACKAGES]


@cache
def imports(module: Path) -> frozenset[str]:
    return frozenset(imported(module))


def imported(module: Path) -> Iterator[str]:
    """What a module imports: top-level names of others' (``nbd``), full names of ours (``proxy.transport.nbd``)."""
    package = module.relative_to(ROOT).parts[:-1]
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (
                name.name if name.name.split(".")[0] in PACKAGES else name.name.split(".")[0] for name in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*base, *((node.module,) if node.module else ())))
            if source.split(".")[0] in PACKAGES:
                yield from (f"{source}.{name.name}" for name in node.names)
                yield source
            else:
                yield source.split(".")[0]


def test_there_is_a_tree_to_look_at() -> None:
    assert len(modules()) > 10
    assert {module.relative_to(ROOT).parts[0] for module in modules()} == set(PACKAGES)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendor_library_has_one_importing_module(vendor: str) -> None:
    places = [str(module.relative_to(ROOT)) for module in modules() if vendor in imports(module)]
    assert len(places) <= 1, f"{vendor} is imported by {places}"
    assert all(place.startswith(VENDORS[vendor]) for place in places)


@pytest.mark.slow
def test_both_halves_of_libvirt_have_the_same_importing_module() -> None:
    halves = {half: [m for m in modules() if half in imports(m)] for half in ("libvirt", "libvirt_qemu")}
    assert not halves["libvirt_qemu"] or halves["libvirt_qemu"] == halves["libvirt"]


def test_modules_are_short_or_say_why_not() -> None:
    long = [
        f"{module.relative_to(ROOT)}: {length} lines"
        for module in modules()
        if (length := len(module.read_text().splitlines())) > LONGEST_MODULE
        and REASON not in (ast.get_docstring(parsed(module)) or "")
    ]
    assert long == []


@pytest.mark.slow
def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{module.relative_to(ROOT)}:{node.lineno} {node.name}"
        for module in modules()
        if "migrations" not in module.parts  # lists of columns, frozen once released
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


# The words that follow are taken apart so that this file does not say what no file may say.
BARE_SUPPRESSION = re.compile(r"#\s*type:\s*ignore(?!\[)|#\s*no" r"qa(?!:)", re.IGNORECASE)
REGISTRIES = [
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("crates", ".io"),
    ("npm", "js.org"),
    ("proxy.go", "lang.org"),
    ("maven", ".org"),
    ("deb.deb", "ian.org"),
    ("archive.ub", "untu.com"),
]
UNWELCOME = re.compile(
    "|".join(re.escape("".join(parts)) for parts in REGISTRIES) + r"|(?<![\w.])/work"
    r"/(?:main|shared|\.)|/tmp"
    r"/brief"
)


def test_no_check_is_silenced_without_its_name() -> None:
    bare = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in tree()
        if file.suffix == ".py"
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if BARE_SUPPRESSION.search(line)
    ]
    assert bare == []


def test_the_tree_names_no_registry_host_and_no_place_of_its_makers() -> None:
    said = [
        f"{file.relative_to(ROOT)}:{number}: {found[0]}"
        for file in tree()
        for number, line in enumerate(file.read_bytes().decode(errors="replace").splitlines(), 1)
        if (found := UNWELCOME.search(line))
    ]
    assert said == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the wheel, built off line from this tree."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (made,) = directory.glob("lanfree-*.whl")
    with zipfile.ZipFile(made) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_the_wheels_top_level_is_exactly_the_five_packages(wheel: set[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == len(PACKAGES) + 1


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel: set[str]) -> None:
    ours = {str(file.relative_to(ROOT)) for file in tree() if file.relative_to(ROOT).parts[0] in PACKAGES}
    assert ours - wheel == set()
    assert "appliance/setup/install.sh" in wheel


@pytest.mark.slow
def test_no_other_distribution_claims_our_package_names() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {name: owners[name] for name in PACKAGES if set(owners.get(name, ())) - {"lanfree"}} == {}


def test_packages_are_not_for_upload() -> None:
    assert "Private :: Do Not Upload" in importlib.metadata.metadata("lanfree").get_all("Classifier", [])


def required(distribution: str, seen: dict[str, str]) -> dict[str, str]:
    """Distributions that are needed at run time, with what they say of their licence: name -> words."""
    for line in importlib.metadata.requires(distribution) or ():
        requirement = Requirement(line)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found = importlib.metadata.metadata(name)
        licence = (found.get("License") or "").strip().splitlines()[:1]
        classified = [word for word in found.get_all("Classifier", []) if word.startswith("License ::")]
        seen[name] = " | ".join([found.get("License-Expression") or "", *licence, *classified])
        required(name, seen)
    return seen


# The LGPL's libraries may be linked; the GPL and AGPL would reach over to the whole.
STRONG = re.compile(r"(?<!L)(?<!Lesser )(?:\bA?GPL|Affero|GNU General Public)", re.IGNORECASE)


# Public domain and BSD but for its mode for Emacs, which is under the GPL and not in what pip installs.
OTHERWISE_FREE = "docutils"


@pytest.mark.slow
def test_what_is_under_the_gpl_of_an_otherwise_free_library_is_not_installed() -> None:
    files = [file for file in importlib.metadata.files(OTHERWISE_FREE) or () if ".dist-info" not in str(file)]
    assert len(files) > 50
    texts = {str(file): Path(str(file.locate())).read_text(errors="ignore") for file in files}
    assert [name for name, text in texts.items() if "GNU General Public License" in text or name.endswith(".el")] == []


def test_nothing_that_runs_with_us_is_under_the_gpl_or_agpl() -> None:
    licences = required("lanfree", {})
    assert {"sqlalchemy", "dbos", "zstandard"} <= set(licences)
    assert {name for name, words in licences.items() if STRONG.search(words)} <= {OTHERWISE_FREE}
    assert [name for name, words in licences.items() if not words.strip(" |")] == []


@pytest.mark.parametrize(
    "words", ["AGPL-3.0-only", "GPL-2.0-or-later", "License :: OSI Approved :: GNU General Public License v3"]
)
def test_the_licence_check_sees_what_it_looks_for(words: str) -> None:
    assert STRONG.search(words)


@pytest.mark.parametrize(
    "words", ["LGPL-3.0-only", "GNU Lesser General Public License v3 (LGPLv3)", "Apache-2.0", "MIT"]
)
def test_the_licence_check_lets_the_others_pass(words: str) -> None:
    assert not STRONG.search(words)


def test_the_licence_is_apache_2() -> None:
    assert "Apache License\n" in (ROOT / "LICENSE").read_text()
    assert importlib.metadata.metadata("lanfree")["License-Expression"] == "Apache-2.0"


def test_ci_runs_what_the_makefile_calls_test() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make test\b", script, re.MULTILINE)
    assert "test" in _targets()


def _targets() -> dict[str, str]:
    """Targets of the Makefile with their line of help."""
    return dict(re.findall(r"^([a-z0-9-]+):.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listed.splitlines()} == set(_targets())
    known = {
        "setup",
        "demo",
        "demo-vsphere",
        "demo-fleet",
        "test",
        "fast",
        "lint",
        "bench",
        "clean",
        "help",
        "peers",
        "s3server",
        "vcsim",
        "oidc",
        "test-vmfs",
    }
    assert known == set(_targets())


def suite(
    directory: Path, *tests: str, options: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run test files under the suite's own conftest.py, in a session of its own."""
    rules = (ROOT / "tests" / "conftest.py").read_text().replace("GRACE = 3.0", "GRACE = 0.2")
    (directory / "conftest.py").write_text(rules)
    (directory / "pytest.ini").write_text("[pytest]\n")
    for number, test in enumerate(tests):
        (directory / f"test_{number}.py").write_text(f"import os, subprocess\nimport pytest\n{test}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--continue-on-collection-errors", "-rs"]
    settings = {**os.environ, "REQUIRE": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    return subprocess.run(
        [*command, *options, str(directory)], env=settings, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_no_test_is_fast_where_the_fast_suite_does_not_look() -> None:
    # Other words for the same tests, with which the suite's conftest.py leaves out nothing.
    words = [
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not (tools or slow)",
        "tests/integration",
        "tests/system",
    ]
    command = [sys.executable, "-m", "pytest", *words]
    settings = {**os.environ, "REQUIRE": ""}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout


def test_the_fast_suite_is_what_pytest_selects_by_itself() -> None:
    selected = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    fast = re.search(r'^FAST = "(.*)"$', (ROOT / "tests" / "conftest.py").read_text(), re.MULTILINE)
    assert fast
    assert f"-m '{fast[1]}'" in selected


NEEDY = "@pytest.mark.requires('no-such-tool')\ndef test_needy():\n    assert True\n"


@pytest.mark.slow
def test_a_missing_tool_skips_with_its_name(tmp_path: Path) -> None:
    done = suite(tmp_path, NEEDY)
    assert done.returncode == 0, done.stdout
    assert "no-such-tool is not installed" in done.stdout
    assert "1 skipped" in done.stdout


@pytest.mark.slow
def test_a_missing_tool_fails_where_it_is_required_and_others_skip(tmp_path: Path) -> None:
    other = NEEDY.replace("no-such-tool", "other-tool")
    done = suite(tmp_path, NEEDY, other, REQUIRE="root-of-2,no-such-tool")
    assert done.returncode == 1, done.stdout
    assert "no-such-tool is not installed (REQUIRE=" in done.stdout
    assert "1 skipped, 1 error" in done.stdout


@pytest.mark.slow
def test_every_skip_is_a_failure_where_all_is_required(tmp_path: Path) -> None:
    in_a_test = "def test_it():\n    pytest.skip('by itself')\n"
    by_mark = "@pytest.mark.skipif(True, reason='by mark')\ndef test_it():\n    assert True\n"
    of_a_module = "pytest.skip('of the module', allow_module_level=True)\n"
    done = suite(tmp_path, in_a_test, by_mark, of_a_module, REQUIRE="all")
    assert done.returncode == 1, done.stdout
    assert "1 failed, 2 errors" in done.stdout
    for why in ("by itself", "by mark", "of the module"):
        assert re.search(f"{why}.* \\(a skip is a failure: REQUIRE=all\\)", done.stdout), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "2")], ids=["one session", "two workers"])
def test_a_process_that_a_test_leaves_behind_fails_the_session_and_is_ended(
    tmp_path: Path, options: Sequence[str]
) -> None:
    # A daemon of the hardest kind: its parent has gone and its environment was cleared but for PATH, as libvirt does.
    test = (
        "def test_it():\n"
        "    words = ['env', '-i', 'PATH=' + os.environ['PATH'], 'sleep', '314']\n"
        "    subprocess.Popen(['setsid', '--fork', *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()\n"
    )
    done = suite(tmp_path, test, options=options)
    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    found = re.search(r"process (\d+): sleep 314", done.stdout)
    assert found, done.stdout
    status = Path(f"/proc/{found[1]}/status")
    assert not status.exists() or "zombie" in status.read_text()

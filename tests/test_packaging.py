"""What is built is complete, holds nothing else, and works where the checkout is not."""

from __future__ import annotations

import configparser
import glob
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT = 50.0  # seconds for one command


def run(*command: str | Path, cwd: Path, python: str | Path = sys.executable) -> str:
    """The output of a Python command that sees neither the checkout nor variables that lead there."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [str(python), *map(str, command)],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("bws", "scripts", "tests"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                copy = source / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    out = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", out, ".", cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", target, wheel, cwd=target)
    return target


def files_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_every_file_of_the_package_and_of_the_command_and_no_other(wheel: Path) -> None:
    expected = {"bws/py.typed"}
    expected |= {file.relative_to(ROOT).as_posix() for file in (ROOT / "bws").rglob("*.py")}
    expected |= {f"bws_cli/{file.name}" for file in (ROOT / "scripts").glob("*.py")}
    assert files_in(wheel) == expected


def test_the_wheel_is_pure_and_carries_the_licence_and_the_command(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        by_name = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        assert b"MIT License" in archive.read(by_name["licenses/LICENSE"])
        assert b"bws = bws_cli.echo_cli:main" in archive.read(by_name["entry_points.txt"])


# The folder of the installed wheel is first on the path, and no editable install of the checkout may answer.
PRELUDE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
"""


def test_an_installed_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = PRELUDE + "import bws; print(bws.__file__, bws.__version__, bws.supported, sep='\\n')"
    file, version, supported = run("-c", code, installed, cwd=tmp_path).splitlines()
    assert installed in Path(file).parents
    (metadata,) = installed.glob("bws-*.dist-info")
    assert metadata.name == f"bws-{version}.dist-info"
    assert supported == "True"


def test_the_installed_command_answers_help(installed: Path, tmp_path: Path) -> None:
    code = PRELUDE + "from bws_cli.echo_cli import main; sys.argv[0] = 'bws'; sys.exit(main())"
    assert "usage: bws" in run("-c", code, installed, "--help", cwd=tmp_path)


FIVE_LINES = """\
pytest_plugins = ["bws.testing.pytest_plugin"]
def test_my_client(echo_server, ws_connect):
    ws = ws_connect(echo_server.url)
    ws.send("hello")
    assert echo_server.next_message() == "hello"
"""


def test_five_lines_of_a_test_pass_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """The wheel is in a venv of its own; what it depends on is lent to it, so that nothing has to be downloaded."""
    run("-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run("-c", where, cwd=tmp_path, python=python).strip())
    run("-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", site, wheel, cwd=tmp_path)
    # A line of a .pth file comes last on the path, and those in a folder that it names are not read: no editable bws.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(FIVE_LINES, encoding="utf-8")
    assert Path(run("-c", "import bws; print(bws.__file__)", cwd=tmp_path, python=python)).is_relative_to(site)
    assert "1 passed" in run("-W", "error", "-m", "pytest", "-p", "no:cacheprovider", cwd=tmp_path, python=python)


def test_mypy_looks_at_every_folder_with_python_code() -> None:
    pattern = setup_cfg()["mypy"]["files"]
    folders = {
        file.relative_to(ROOT).parts[0]
        for file in ROOT.glob("[!.]*/**/*.py")
        if file.relative_to(ROOT).parts[0] not in ("build", "dist")
    }
    assert set(glob.glob(pattern, root_dir=ROOT)) == folders


def test_pyproject_holds_only_what_can_stand_nowhere_else() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    tables = {".".join(line.strip("[]").split(".")[:2]) for line in lines if line.startswith("[")}
    assert tables == {"build-system", "tool.ruff", "tool.bandit"}

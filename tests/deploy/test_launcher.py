"""The launcher's parts, and bin/run itself from start to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from launcher import install, place, processes, servers
from launcher.instance import Instance, answers
from launcher.place import Home
from launcher.processes import Keeper, Program, started_at
from launcher.say import Stop

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
# A parent with a child that outlives it unless somebody looks for it.
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
    "time.sleep(600)",
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def keeper(home: Home) -> Iterator[Keeper]:
    keeper = Keeper(home)
    yield keeper
    keeper.stop()


def program(name: str, command: list[str], **options: object) -> Program:
    return Program(name=name, command=command, env=dict(os.environ), **options)  # type: ignore[arg-type]


def pid_of(home: Home, name: str) -> int:
    return place.read_pid(home.run / f"{name}.pid")


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def look_after(keeper: Keeper, true: Callable[[], object], seconds: float = 20.0) -> None:
    """Let the keeper do what watch() does, until something is true."""

    def step() -> bool:
        for running in list(keeper._running.values()):
            keeper._look_after(running)
        return bool(true())

    until(step, seconds)


# --- settings


def test_dotenv_reads_the_usual_forms(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# no\nA=1\nexport B='two words' # why\nC=\"x#y\"\nD=plain # note\nE=\n\nnonsense\nF=a=b\n"
    )
    assert place.dotenv(path) == {"A": "1", "B": "two words", "C": "x#y", "D": "plain", "E": "", "F": "a=b"}


def test_a_variable_that_is_set_wins_over_dotenv_and_an_empty_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nSITE_NAME=File\nKASSA_TEST_EMPTY=\n")
    monkeypatch.setattr(place, "ROOT", tmp_path)
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("SITE_NAME", "Environment")
    environ = place.environment()
    assert (environ["PORT"], environ["SITE_NAME"]) == ("9000", "Environment")
    assert "KASSA_TEST_EMPTY" not in environ


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "8000.5"])
def test_a_port_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(Stop, match="SANDBOX_PORT"):
        place.number({"SANDBOX_PORT": text}, "SANDBOX_PORT", 8001)


def test_secrets_and_ports_are_kept_and_private(home: Home) -> None:
    assert home.kept("secret_key") == Home(home.path).kept("secret_key")
    assert home.port("redis_port") == Home(home.path).port("redis_port")
    assert (home.path / "kept.json").stat().st_mode & 0o077 == 0


def test_a_kept_port_that_somebody_took_is_exchanged(home: Home) -> None:
    kept = home.port("redis_port")
    with socket.socket() as other:
        other.bind(("127.0.0.1", kept))
        other.listen()
        assert home.port("redis_port") != kept


def test_without_keys_the_sandbox_is_used(home: Home) -> None:
    env = Instance(home, {"PORT": "8300"}).resolve({})
    assert env["STRIPE_SECRET_KEY"] == "sk_test_kassa_sandbox"
    assert env["STRIPE_API_BASE"] == "http://127.0.0.1:8301/stripe"
    assert env["SANDBOX_WEBHOOK_URL"] == "http://127.0.0.1:8300/stripe/webhook/"
    assert (env["SUMUP_API_KEY"], env["SUMUP_MERCHANT_CODE"]) == ("sup_sk_kassa_sandbox", "MKASSA01")
    assert (env["SUMUP_CLIENT_ID"], env["SUMUP_API_BASE"]) == (
        "cc_classic_kassa_sandbox",
        "http://127.0.0.1:8301/sumup",
    )
    assert (env["KASPI_MODE"], env["KASPI_API_BASE"]) == ("r1", "http://127.0.0.1:8301/kaspi")
    assert (env["MAIL_SERVER"], env["MAIL_PORT"]) == ("127.0.0.1", env["SANDBOX_SMTP_PORT"])
    assert (env["KASSA_ENV"], env["PUBLIC_URL"]) == ("development", "http://localhost:8300")


def test_a_key_of_one_s_own_means_stripe_itself(home: Home) -> None:
    env = Instance(home, {"STRIPE_SECRET_KEY": "sk_test_mine", "MAIL_API_KEY": "re_mine"}).resolve({})
    assert env["STRIPE_SECRET_KEY"] == "sk_test_mine"
    assert "STRIPE_API_BASE" not in env
    assert "STRIPE_WEBHOOK_SECRET" not in env
    assert "MAIL_SERVER" not in env


@pytest.mark.parametrize(
    "mine",
    [{"SUMUP_API_KEY": "sup_sk_mine"}, {"SUMUP_CLIENT_ID": "mine"}, {"STRIPE_SECRET_KEY": "sk_live_mine"}],
)
def test_the_sandbox_s_sumup_is_not_mixed_with_one_s_own_or_live_money(
    home: Home, mine: dict[str, str]
) -> None:
    env = Instance(home, mine).resolve({})
    assert "SUMUP_API_BASE" not in env
    assert "kassa_sandbox" not in env.get("SUMUP_API_KEY", "") + env.get("SUMUP_CLIENT_SECRET", "")


@pytest.mark.parametrize("mine", [{"KASPI_MODE": "manual"}, {"STRIPE_SECRET_KEY": "sk_live_mine"}])
def test_the_sandbox_s_kaspi_is_not_mixed_with_one_s_own_or_live_money(
    home: Home, mine: dict[str, str]
) -> None:
    env = Instance(home, mine).resolve({})
    assert "KASPI_API_BASE" not in env and "KASPI_DEVICE_TOKEN" not in env


# --- what it cannot do


def test_a_taken_port_is_named_with_the_way_out(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Stop, match=rf"Port {port} is taken.*PORT="):
            Instance(home, {"PORT": str(port), "SANDBOX_PORT": str(place.free_port())}).check_ports()


def test_two_ports_alike_are_refused(home: Home) -> None:
    with pytest.raises(Stop, match="two different numbers"):
        Instance(home, {"PORT": "8300", "SANDBOX_PORT": "8300"}).check_ports()


def test_a_full_disk_is_named_with_its_megabytes(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"Only \d+ MB are free"):
        install.check_disk(tmp_path, needed_mb=10**9)


@pytest.mark.parametrize(
    ("version", "here", "url", "wanted"),
    [
        ((3, 14, 0), "", "", True),
        ((3, 13, 0), "", "", False),
        ((3, 14, 0), "/usr/bin/valkey-server", "", False),
        ((3, 14, 0), "", "redis://127.0.0.1", False),
    ],
)
def test_redis_is_installed_where_no_wheel_has_it(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], here: str, url: str, wanted: bool
) -> None:
    monkeypatch.setattr("sys.version_info", version)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(servers, "redis_here", lambda: here)
    monkeypatch.setenv("REDIS_URL", url)
    assert ("redis-server" in install.missing_system(for_tests=True)) is wanted


@pytest.mark.parametrize(
    ("known", "taken"), [("redis-server", "redis-server"), ("valkey-server", "valkey-server")]
)
def test_valkey_is_taken_where_apt_knows_no_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str, taken: str
) -> None:
    """Beside what else is missing, in one line; a stand-in for apt notes what it is told."""
    told = tmp_path / "told"
    for name, script in (
        ("apt-get", f'echo "$@" >> {told}'),
        ("apt-cache", f'[ "$2" = {known} ] && echo "  Candidate: 8.0" || echo "  Candidate: (none)"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(install, "LOG", tmp_path / "log")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    install.install_system(["libpango-1.0-0", "redis-server"], yes=True)
    assert told.read_text().splitlines()[-1].endswith(f"libpango-1.0-0 {taken}")


def test_a_valkey_on_the_path_serves_as_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valkey = tmp_path / "valkey-server"
    valkey.write_text('#!/bin/sh\necho "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc bits=64"\n')
    valkey.chmod(0o755)
    monkeypatch.setattr(servers, "_wheel_folder", lambda inside: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert servers.find_redis() == str(valkey)
    valkey.write_text('#!/bin/sh\necho "Redis server v=6.0.16"\n')
    with pytest.raises(Stop, match=r"Redis 6\.2 or newer, or Valkey"):
        servers.find_redis()


@pytest.mark.parametrize("script", ["run", "test", "flask"])
def test_without_python_3_11_it_says_so(tmp_path: Path, script: str) -> None:
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        fake = fakes / name
        fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
        fake.chmod(0o755)
    for tool in ("dirname", "cat", "sed"):
        (fakes / tool).symlink_to(str(shutil.which(tool)))
    refused = subprocess.run(
        ["/bin/sh", str(ROOT / "bin" / script)], env={"PATH": str(fakes)}, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "needs Python 3.11 or newer, and this machine has Python 3.9.2" in refused.stderr


def test_packages_that_cannot_be_fetched_stop_it_with_pip_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements-local.txt").write_text("no-such-package-of-kassa==1.0\n")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "LOG", tmp_path / "log")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        Stop, match="(?s)could not be installed. Is this machine online.*no-such-package-of-kassa"
    ):
        install.install_packages("requirements-local.txt")


def test_a_second_start_in_one_home_is_refused(home: Home) -> None:
    (home.run / "run.pid").write_text("4711\n")
    with home.lock(wait=False):
        assert home.is_running()
        with pytest.raises(Stop, match="already runs.*kill 4711"), home.lock(wait=False):
            pass
    assert not home.is_running()


def test_a_command_before_the_first_start_says_how_to_start(tmp_path: Path) -> None:
    env = {**os.environ, "KASSA_HOME": str(tmp_path / "none"), "KASSA_ENV": "development"}
    refused = subprocess.run([str(ROOT / "bin/flask"), "doctor"], env=env, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "Start it once: ./bin/run" in refused.stderr
    assert not (tmp_path / "none").exists()


# --- keeping processes


def test_what_dies_is_started_again_and_its_family_ended(home: Home, keeper: Keeper) -> None:
    keeper.start(program("family", FAMILY))
    log = home.log / "family.log"
    until(lambda: log.exists() and log.read_text().strip())
    first, child = pid_of(home, "family"), int(log.read_text())
    os.kill(first, signal.SIGKILL)
    look_after(keeper, lambda: pid_of(home, "family") != first)
    assert not started_at(child)
    assert started_at(pid_of(home, "family"))


def test_what_dies_at_once_waits_longer_each_time(keeper: Keeper) -> None:
    keeper.start(program("short", [sys.executable, "-c", ""]))
    look_after(keeper, lambda: keeper._running["short"].pause >= 2.0)
    assert keeper._running["short"].pause <= processes.LONGEST_PAUSE


def test_what_is_held_stays_down_until_it_is_let_go(home: Home, keeper: Keeper) -> None:
    keeper.start(program("redis", SLEEPER))
    first = pid_of(home, "redis")
    hold = home.run / "redis.hold"
    hold.touch()
    os.kill(first, signal.SIGKILL)
    until_later = time.monotonic() + 1.5
    look_after(keeper, lambda: time.monotonic() > until_later)
    assert pid_of(home, "redis") == first
    hold.unlink()
    look_after(keeper, lambda: pid_of(home, "redis") != first)


def test_what_never_gets_ready_stops_the_start_with_its_last_words(keeper: Keeper) -> None:
    words = [sys.executable, "-c", "print('no database here'); raise SystemExit(3)"]
    with pytest.raises(Stop, match=r"(?s)web stopped at once \(exit code 3\).*no database here"):
        keeper.start(program("web", words, ready=lambda: False))
    with pytest.raises(Stop, match="slow is not ready after 0 s"):
        keeper.start(program("slow", SLEEPER, ready=lambda: False, ready_seconds=0.3))


def test_stopping_ends_those_who_will_not_hear(home: Home, keeper: Keeper) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(600)"
    )
    keeper.start(program("deaf", [sys.executable, "-c", deaf], stop_seconds=0.3))
    until(lambda: (home.log / "deaf.log").read_text())
    pid = pid_of(home, "deaf")
    keeper.stop()
    assert not started_at(pid)
    assert list(home.run.glob("*.pid")) == []


def test_the_next_start_cleans_what_a_killed_launcher_left(home: Home, keeper: Keeper) -> None:
    keeper.start(program("web", FAMILY))
    log = home.log / "web.log"
    until(lambda: log.exists() and log.read_text().strip())
    leader, child = pid_of(home, "web"), int(log.read_text())
    # The launcher is gone; another one comes.
    assert processes.clean_leftovers(home) == ["web"]
    keeper._running["web"].process.wait()
    assert not started_at(leader)
    assert not started_at(child)
    assert processes.clean_leftovers(home) == []


def test_a_number_that_now_is_another_s_process_is_left_alone(home: Home) -> None:
    stranger = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        note = {"web": {"pid": str(stranger.pid), "started": "some other time"}}
        (home.run / "processes.json").write_text(json.dumps(note))
        assert processes.clean_leftovers(home) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# --- the whole


def _heeds_all() -> None:
    """However these tests were started: under nohup, a child would inherit that it ignores a hang-up."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("background", [False, True])
def test_a_command_ends_on_every_signal_but_a_hang_up_that_nohup_ignores(
    tmp_path: Path, signum: signal.Signals, background: bool
) -> None:
    """The launcher itself, with a command that waits for ever in the place of bin/run's.

    It waits in short pieces: a signal that comes just before a long one would be heard when that is over.
    """
    waiting = (
        "import sys, time, launch\n"
        "pieces = lambda: [time.sleep(0.2) for _ in range(300)]\n"
        "launch.COMMANDS['run'] = lambda _: print('up', flush=True) or pieces()\n"
        "sys.argv = ['launch', 'run']; sys.exit(launch.main())"
    )
    shell = 'trap "" INT HUP; exec "$@"' if background else 'exec "$@"'
    process = subprocess.Popen(
        ["/bin/sh", "-c", shell, "sh", sys.executable, "-c", waiting],
        cwd=ROOT / "bin", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=_heeds_all,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.send_signal(signum)
    if background and signum is signal.SIGHUP:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.stdout.close()


@pytest.mark.slow
@pytest.mark.deploy
@pytest.mark.xdist_group("deploy")
def test_bin_run_from_start_to_stop(tmp_path: Path) -> None:
    """Started, used, its web killed and back, a command run in it, stopped: nothing remains."""
    port, sandbox_port, home = place.free_port(), place.free_port(), tmp_path / "home"
    tmp_path.chmod(0o711)
    unset = ("DATABASE_URL", "REDIS_URL", "KASSA_ENV", "SECRET_KEY", "STRIPE_SECRET_KEY", "MAIL_SERVER")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env.update(KASSA_HOME=str(home), PORT=str(port), SANDBOX_PORT=str(sandbox_port))
    with (tmp_path / "out").open("wb") as out:
        # Settings of the shell that starts it; bin/flask is used in another one below.
        own = {"SECRET_KEY": "a-key-of-this-shell-alone", "SITE_NAME": "Harbour Hall"}
        # As `nohup ./bin/run &` in a script: the shell has it ignore Ctrl-C, nohup the hang-up.
        started = ["nohup", str(ROOT / "bin/run")]
        run = subprocess.Popen(
            ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *started],
            env={**env, **own}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    output = tmp_path / "out"
    try:
        until(lambda: "Kassa is open." in output.read_text() or run.poll() is not None, 120)
        assert run.poll() is None, output.read_text()
        assert answers(f"http://127.0.0.1:{port}/livez")
        assert (home / "env").stat().st_mode & 0o077 == 0
        pids = {path.stem: place.read_pid(path) for path in (home / "run").glob("*.pid")}
        assert set(pids) == {"run", "postgres", "redis", "sandbox", "web", "worker", "clock"}
        assert pids["run"] == run.pid
        run.send_signal(signal.SIGHUP)

        os.kill(pids["web"], signal.SIGKILL)
        until(lambda: place.read_pid(home / "run/web.pid") != pids["web"], 20)
        until(lambda: answers(f"http://127.0.0.1:{port}/livez"), 30)
        pids["web"] = place.read_pid(home / "run/web.pid")

        def healthy() -> bool:
            command = [str(ROOT / "bin/flask"), "doctor"]
            return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0

        # The clock writes its schedule a moment after it began. A page tells that sooner than a command.
        until(
            lambda: requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).json()["status"] == "ok", 60
        )
        until(healthy, 60)
        settings = json.loads((home / "env").read_text())
        assert {name: settings[name] for name in own} == own
    finally:
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0, output.read_text()
    assert [name for name, pid in pids.items() if started_at(pid)] == []
    assert list((home / "run").glob("*.pid")) == []
    assert place.port_is_free(port)

    # Nothing runs, and a command still works: PostgreSQL and Redis are there for as long as it takes.
    after = subprocess.run(
        [str(ROOT / "bin/flask"), "db", "current"], env=env, capture_output=True, text=True
    )
    assert after.returncode == 0, after.stderr
    assert "(head)" in after.stdout
    assert list((home / "run").glob("*.pid")) == []

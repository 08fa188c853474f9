"""A package: of Debian by apt-get, or of Python by pip into a virtual environment.

The digest is of the version where one is asked for, else the word 'installed': any will do.  What is installed is read from
dpkg's database, or from the metadata in the environment; nothing is asked of a repository to look.  A look for people says too
what would keep it from being installed, as far as this host knows; another resource may see to it first, so it is no failure.
A revert installs the version of before, or removes what was not there; dependencies that came along stay.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from shlex import join
from shutil import which

from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import Package
from dislocate.core.words import names
from dislocate.host.before import Nothing, PackageImage
from dislocate.host.digests import ABSENT, digest_of
from dislocate.host.programs import run_program
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure, Work, about

INSTALLED = "installed"
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "LC_ALL": "C"}
_VERSION = re.compile(r"^ (?:\*{3}|   ) (\S+) -?\d+$", re.ASCII | re.MULTILINE)  # a line of `apt-cache policy`
_DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?", re.ASCII)
_PYTHON = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?", re.ASCII)


def look(work: Work, resource: Package) -> TaskOutcome:
    _check_names(resource)
    if not resource.venv and which("dpkg-query") is None:
        line = join(_install(resource, resource.version))
        return TaskOutcome(TaskResult.UNTOLD, words=f"this host has no Debian packages; it would run: {line}")
    there = _installed(work, resource)
    before, after = _digest(resource, there), _wanted(resource)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after, words=there or "")
    words = f"{there or 'absent'} -> {resource.version or 'the newest'}"
    lacking = _lacking(resource, _install(resource, resource.version))
    if work.task.diff and not lacking and not resource.venv:
        lacking = _unknown_to_apt(work, resource)
    return TaskOutcome(
        TaskResult.WOULD_CHANGE, before=before, after=after, words=f"{words}, but {lacking}" if lacking else words
    )


def apply(work: Work, resource: Package) -> TaskOutcome:
    _check_names(resource)
    _check_tools(resource, _install(resource, resource.version))
    there = _installed(work, resource)
    before, after = _digest(resource, there), _wanted(resource)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after, words=there or "")
    in_thread(_remember, work, resource, there)
    _run(work, _install(resource, resource.version))
    now = _installed(work, resource)
    if _digest(resource, now) != after:
        raise Failure("verify", f"{resource.name} is {now or 'absent'} after it was installed; is it pinned?")
    return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words=f"{there or 'absent'} -> {now}")


def revert(work: Work, resource: Package) -> TaskOutcome:
    _check_names(resource)
    image = in_thread(work.house.images.find, work.task.run, about(resource))
    if not isinstance(image, PackageImage | Nothing):
        raise Failure("lost", f"what {resource.name} was before this run is not kept any more; install it by hand")
    wanted = image.version if isinstance(image, PackageImage) else None
    there = _installed(work, resource)
    before = _digest(resource, there)
    if there == wanted:
        return TaskOutcome(TaskResult.SAME, before=before, after=before)
    command = _remove(resource) if wanted is None else _install(resource, wanted)
    _check_tools(resource, command)
    _run(work, command)
    now = _installed(work, resource)
    if now != wanted:
        raise Failure("verify", f"{resource.name} is {now or 'absent'} after {join(command)}")
    return TaskOutcome(
        TaskResult.CHANGED,
        before=before,
        after=_digest(resource, now),
        words=f"{there or 'absent'} -> {now or 'absent'}",
    )


def _check_names(resource: Package) -> None:
    """Names go into a command line, where some begin with '-'."""
    pattern = _PYTHON if resource.venv else _DEBIAN
    if not pattern.fullmatch(resource.name):
        raise Failure("apply", f"{resource.name!r} is no name of a package")
    if resource.version and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+:~!_-]*", resource.version):
        raise Failure(
            "apply", f"{resource.version!r} is no version of a package; write it as it is listed, such as '1.2-3'"
        )
    if resource.venv and not resource.venv.startswith("/"):
        raise Failure("apply", f"{resource.venv!r} is no absolute path; write it from '/' on")


def _check_tools(resource: Package, command: Sequence[str]) -> None:
    if lacking := _lacking(resource, command):
        raise Failure("apply", lacking)


def _lacking(resource: Package, command: Sequence[str]) -> str:
    """What `command` needs and is not here; empty: nothing."""
    if resource.venv:
        if os.access(_pip(resource)[0], os.X_OK):
            return ""
        make = f"`python3 -m venv {resource.venv}`"
        return f"there is no environment {resource.venv}; make it first, with a command such as {make} that it requires"
    if which("apt-get") is None or which("dpkg-query") is None:
        return f"this host has no apt-get, so nothing is run; it would be: {join(command)}"
    if os.geteuid() != 0:
        return f"only root may run {join(command)}, and this agent is uid {os.geteuid()}"
    return ""


def _unknown_to_apt(work: Work, resource: Package) -> str:
    """That apt's lists do not have it; empty: they do, or nobody knows."""
    if which("apt-cache") is None:
        return ""
    asked = run_program(work, ("apt-cache", "policy", "--", resource.name), environment=_QUIET)
    if asked.code != 0:
        return ""
    said = asked.output.decode(errors="replace")
    mend = "is the name right, and are its lists new (`apt-get update`)?"
    if "Candidate:" not in said:
        return f"apt knows no package {resource.name} on this host; {mend}"
    versions = _VERSION.findall(said)
    if resource.version and versions and resource.version not in versions:
        return f"apt knows no version {resource.version} of {resource.name} on this host but {names(versions)}; {mend}"
    return ""


def _installed(work: Work, resource: Package) -> str | None:
    """The version that is there, or None."""
    if resource.venv:
        return in_thread(_in_environment, resource)
    ended = run_program(work, ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Version}\n", "--", resource.name))
    for line in ended.output.decode(errors="replace").splitlines():
        state, _, version = line.partition("\t")
        if state.strip().endswith("i") and version:  # 'ii', and 'hi' for one that is held
            return version
    return None


def _sites(resource: Package) -> list[str]:
    return sorted(str(path) for path in FilePath(resource.venv).glob("lib/python3*/site-packages"))


def _in_environment(resource: Package) -> str | None:
    from importlib.metadata import distributions  # a mebibyte, for agents that have such a resource

    wanted = _normal(resource.name)
    for found in distributions(path=_sites(resource)):
        if found.metadata["Name"] and _normal(found.metadata["Name"]) == wanted:
            return found.version
    return None


def _normal(name: str) -> str:
    """Without extras, as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def _pip(resource: Package) -> tuple[str, ...]:
    return (f"{resource.venv}/bin/python", "-m", "pip")


def _install(resource: Package, version: str) -> tuple[str, ...]:
    if resource.venv:
        name = f"{resource.name}=={version}" if version else resource.name
        return (*_pip(resource), "install", "--quiet", "--", name)
    options = ("-y", "-q", "-o", "DPkg::Lock::Timeout=30", "--no-install-recommends", "--allow-downgrades")
    return ("apt-get", "install", *options, "--", f"{resource.name}={version}" if version else resource.name)


def _remove(resource: Package) -> tuple[str, ...]:
    if resource.venv:
        return (*_pip(resource), "uninstall", "--yes", "--", resource.name.partition("[")[0])
    return ("apt-get", "remove", "-y", "-q", "-o", "DPkg::Lock::Timeout=30", "--", resource.name)


def _run(work: Work, command: Sequence[str]) -> None:
    ended = run_program(work, command, environment=_QUIET, stream=work.task.stream)
    if ended.code != 0:
        raise Failure("apply", f"{join(command)}: {ended.how}: {ended.words}", ended.code)


def _remember(work: Work, resource: Package, there: str | None) -> None:
    image = Nothing() if there is None else PackageImage(there)
    work.house.images.keep(work.task.run, about(resource), image)


def _wanted(resource: Package) -> str:
    return _digest_of(resource.version) if resource.version else INSTALLED


def _digest(resource: Package, there: str | None) -> str:
    if there is None:
        return ABSENT
    return _digest_of(there) if resource.version else INSTALLED


def _digest_of(version: str) -> str:
    return digest_of("package", version)

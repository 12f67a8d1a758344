"""The files that belong to the repository: what git tracks, or in an unpacked archive everything but build output."""
import pathlib
import subprocess

BUILD_OUTPUT = ("build/", "build-", "memory/", ".git/")


def tracked_files(root):
    """Paths relative to root, of files that exist."""
    root = pathlib.Path(root)
    if (root / ".git").exists():
        listed = subprocess.run(["git", "-c", f"safe.directory={root}", "-C", str(root), "ls-files", "-z"], check=True,
                                capture_output=True)
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [p.relative_to(root).as_posix() for p in root.rglob("*")]
        names = [name for name in names if not name.startswith(BUILD_OUTPUT)]
    return [name for name in names if (root / name).is_file()]

"""The metadata of an image's packages and the version of its Python, as a tar on stdout.

Runs inside the image, as `python -c`, so it is short and needs only the standard library. The
folders to look through are its arguments; scripts/sbom.py reads the tar.
"""

import io
import os
import platform
import sys
import tarfile

ABOUT = (".dist-info/METADATA", ".dist-info/direct_url.json", ".egg-info/PKG-INFO")
SYSTEM = ("/var/lib/dpkg/status", "/etc/os-release")  # Debian's and Ubuntu's packages
PYTHON = "python-version"

with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", dereference=True) as tar:
    for root in sys.argv[1:]:
        for folder, folders, files in os.walk(root):
            folders[:] = [
                n for n in sorted(folders) if os.path.join(folder, n) not in ("/proc", "/sys")
            ]
            for path in (os.path.join(folder, name) for name in sorted(files)):
                if path.endswith(ABOUT + SYSTEM):
                    tar.add(path)
    version = platform.python_version().encode()
    member = tarfile.TarInfo(PYTHON)
    member.size = len(version)
    tar.addfile(member, io.BytesIO(version))

"""Fortran in an engine: its output is captured live and in order, and its STOP is a death with a code."""

from __future__ import annotations

import os
import shutil
import subprocess

import ipsteer
import pytest

SOURCE = """
subroutine say(number)
  integer, intent(in) :: number
  print '(a, i0)', 'fortran ', number
  write (0, '(a, i0)') 'to unit 0: ', number
end subroutine

subroutine finish()
  print '(a)', 'about to stop'
  stop 3
end subroutine
"""
LOAD = "import ctypes, ipengine\nlibrary = ctypes.CDLL({path!r})\n"
SAY = """
print('python before')
library.say_(ctypes.byref(ctypes.c_int(ipengine.rank)))
print('python after')
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Path of a shared library made from SOURCE."""
    compiler = shutil.which("gfortran")
    if compiler is None:
        pytest.skip("no gfortran here")
    directory = tmp_path_factory.mktemp("fortran")
    (directory / "say.f90").write_text(SOURCE)
    path = directory / "libsay.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, directory / "say.f90"], check=True, timeout=60)
    return str(path)


@pytest.mark.timeout(60)
def test_output_of_fortran_keeps_its_place(view, library):
    result = view.execute(LOAD.format(path=library) + SAY)
    result.get(timeout=30)
    expected = [f"python before\nfortran {rank}\npython after\n" for rank in range(4)]
    assert result.stdout == expected
    assert result.stderr == [f"to unit 0: {rank}\n" for rank in range(4)]


@pytest.mark.timeout(60)
def test_stop_is_told_with_its_code(home, library):
    with ipsteer.Cluster(2, cluster_id=f"stop-{os.getpid()}") as rc:
        fatal = rc[1].execute(LOAD.format(path=library) + "library.finish_()")
        with pytest.raises(ipsteer.error.EngineError, match=r"engine 1 .* exit code 3"):
            fatal.get(timeout=30)
        assert fatal.stdout == "about to stop\n"

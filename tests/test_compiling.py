"""What numba keeps on disk is made anew when a file that went into it has changed."""

import subprocess
import sys
from pathlib import Path

from fairseq_convtext.compiling import digest
from fairseq_convtext.decoding import prefix_beam_kernel

ROOT = Path(__file__).resolve().parents[1]
# The package without what its __init__.py imports, which takes seconds.
PROGRAM = """
import sys, types
package = sys.modules["fairseq_convtext"] = types.ModuleType("fairseq_convtext")
package.__path__ = [{package!r}]
sys.path.insert(0, {folder!r})
import caller
"""
CALLED = "from fairseq_convtext.compiling import compiled\n\n@compiled\ndef part(x):\n    return x + {}\n"
CALLER = """
import sys
from pathlib import Path
from called import part
from fairseq_convtext.compiling import compiled_once, digest

def kept(sources):
    @compiled_once
    def whole(x):
        _ = sources
        return 2 * part(x)
    return whole

whole = kept(digest(Path(__file__).parent))
print(whole(1.0), sum(whole.stats.cache_hits.values()))
"""


def test_a_change_in_the_file_of_a_function_that_is_called_is_noticed(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)

    def found(added):
        (tmp_path / "called.py").write_text(CALLED.format(added))
        program = PROGRAM.format(folder=str(tmp_path), package=str(ROOT / "fairseq_convtext"))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert found(1) == ["4.0", "0"]
    assert found(1) == ["4.0", "1"]  # from the disk
    assert found(2) == ["6.0", "0"]


def test_the_search_is_made_anew_when_a_file_of_its_folder_has_changed():
    closed_over = [cell.cell_contents for cell in prefix_beam_kernel.search.py_func.__closure__]
    assert digest(Path(prefix_beam_kernel.__file__).parent) in closed_over


def test_the_digest_of_a_folder_tells_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("1")
    seen = {digest(tmp_path)}
    (tmp_path / "note.txt").write_text("no source")
    assert digest(tmp_path) in seen
    (tmp_path / "a.py").write_text("2")
    seen.add(digest(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    seen.add(digest(tmp_path))
    assert len(seen) == 3

//! Functions as a Python client sends them: pickled by the project's own canning in the project's own Python.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use ipengine_protocol::{PythonVersion, Work};

use crate::launch::{root, venv_python};

const PICKLER: &str = "
import sys
sys.path.insert(0, sys.argv[1])
import ipengine._canning as _canning
space = {'__name__': '__main__'}
exec(compile(sys.stdin.read(), '<test>', 'exec'), space)
call = (space['f'], space.get('args', ()), space.get('kwargs', {}))
stream, buffers, by_value = _canning.dumps(call)
assert not buffers
sys.stdout.buffer.write(bytes([by_value, *sys.version_info[:3]]) + stream)
";

/// An `apply` of the function `f` that `source` defines, to its `args` and `kwargs`.
///
/// # Panics
/// When Python cannot pickle it.
#[must_use]
pub fn apply(source: &str) -> (Work, Vec<Bytes>) {
    let mut python = Command::new(venv_python())
        .args(["-c", PICKLER])
        .arg(root().join("engine/python"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the project's Python runs");
    let mut stdin = python.stdin.take().expect("piped above");
    stdin
        .write_all(source.as_bytes())
        .expect("Python reads its input");
    drop(stdin);
    let output = python.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "Python cannot pickle {source}");
    let (facts, stream) = output.stdout.split_at(4);
    let python = Some(PythonVersion(facts[1], facts[2], facts[3]));
    let work = Work::Apply {
        name: "f".to_owned(),
        python,
        by_value: facts[0] != 0,
    };
    (work, vec![Bytes::copy_from_slice(stream)])
}

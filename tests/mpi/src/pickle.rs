//! Functions as a Python client would send them: pickled by the project's own Python with cloudpickle.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use ipengine_protocol::{PythonVersion, Work};

use crate::launch::venv_python;

const PICKLER: &str = "
import sys, cloudpickle
space = {'__name__': '__main__'}
exec(compile(sys.stdin.read(), '<test>', 'exec'), space)
stream = cloudpickle.dumps((space['f'], space.get('args', ()), space.get('kwargs', {})), protocol=5)
sys.stdout.buffer.write(bytes(sys.version_info[:3]) + stream)
";

/// An `apply` of the function `f` that `source` defines, to its `args` and `kwargs`.
///
/// # Panics
/// When Python cannot pickle it.
#[must_use]
pub fn apply(source: &str) -> (Work, Vec<Bytes>) {
    let mut python = Command::new(venv_python())
        .args(["-c", PICKLER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the project's Python runs");
    let mut stdin = python.stdin.take().expect("piped above");
    stdin.write_all(source.as_bytes()).expect("Python reads its input");
    drop(stdin);
    let output = python.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "Python cannot pickle {source}");
    let (version, stream) = output.stdout.split_at(3);
    let python = Some(PythonVersion(version[0], version[1], version[2]));
    let work = Work::Apply { name: "f".to_owned(), python, by_value: true };
    (work, vec![Bytes::copy_from_slice(stream)])
}

//! Which MPI is under test: what the program is linked to, what runs in an engine, and what mpi4py there was built for.

use std::process::Command;

use ipengine_tests::launch::engine_program;
use ipengine_tests::outcome::raised;
use ipengine_tests::{Launch, Mpi, skipped};
use serde_json::Value;

/// File names of the MPI libraries that a process has loaded.
const LOADED: &str = "\
import os, re
paths = {line.split()[-1] for line in open('/proc/self/maps') if '/' in line}
loaded = sorted(os.path.basename(path) for path in paths if re.search(r'/lib(mpi|mpich)\\.so', path))
";

fn names(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list").iter();
    list.map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

fn is_ours(library: &str) -> bool {
    let ours = Mpi::under_test().libraries;
    ours.iter().any(|name| library.starts_with(name))
}

#[test]
fn the_program_says_which() {
    let output = Command::new(engine_program())
        .args(["--check", "--python"])
        .arg(Mpi::under_test().python())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name:?} in {text}"))
            .trim()
            .to_owned()
    };
    assert!(row("MPI ").starts_with(Mpi::under_test().version), "{text}");
    let library = row("MPI library ");
    assert!(is_ours(library.rsplit('/').next().expect("a name")), "{text}");
}

#[test]
fn an_engine_has_it_and_no_other() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], LOADED);
    let before = names(&client.value(0, "loaded"));
    let source = "\
import ctypes
text, length = ctypes.create_string_buffer(10000), ctypes.c_int()
ctypes.CDLL(None).MPI_Get_library_version(text, ctypes.byref(length))
version = text.value.decode()
from mpi4py import MPI
";
    client.must(&[0, 1], source);
    client.must(&[0, 1], LOADED);
    for engine in [0, 1] {
        let loaded = names(&client.value(engine, "loaded"));
        assert_eq!(loaded, before, "mpi4py brings another MPI along");
        assert!(loaded.len() == 1 && is_ours(&loaded[0]), "{loaded:?}");
        let said = names(&client.value(
            engine,
            "[version, MPI.Get_library_version(), MPI.get_vendor()[0]]",
        ));
        let ours = |text: &String| text.starts_with(Mpi::under_test().version);
        assert!(said.iter().all(ours), "{said:?}");
    }
    let mpi = job.record().mpi;
    assert!(mpi.starts_with(Mpi::under_test().version), "{mpi}");
}

/// Two MPIs in one process crash; the real build of the other one is refused in words.
#[test]
fn an_mpi4py_of_another_mpi_is_refused() {
    let (ours, theirs) = (Mpi::under_test().python(), Mpi::other().python());
    if ours == theirs {
        skipped(&format!(
            "there is no build for {} beside this one",
            Mpi::other().name
        ));
        return;
    }
    let job = Launch::plain(1).python(Some(&theirs)).start();
    let client = job.connect();
    let arrived = client.run(&[0], "from mpi4py import MPI");
    let raised = raised(&arrived[0]);
    assert_eq!(raised.type_name, "ImportError", "{}", raised.message);
    assert!(raised.message.contains("two MPI libraries"), "{}", raised.message);
    client.must(&[0], "1 + 1");
}

/// What the standard asks of whoever asks for a communicator's error handler. Open MPI counts it on its own constants.
#[test]
fn error_handlers_are_asked_for_and_freed_as_often_as_one_likes() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    client.must(
        &[0],
        "import ctypes\nfrom mpi4py import MPI\nlib = ctypes.CDLL(None)\n\
         comm = ctypes.c_void_p(MPI._handleof(MPI.COMM_WORLD))\n\
         handler = ctypes.c_void_p()\n\
         MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_ARE_FATAL)\n\
         for _ in range(200):\n    assert lib.MPI_Comm_get_errhandler(comm, ctypes.byref(handler)) == 0\n\
         \x20   assert lib.MPI_Errhandler_free(ctypes.byref(handler)) == 0\n\
         MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_RETURN)\n\
         MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_ARE_FATAL)\n\
         assert MPI.COMM_WORLD.allreduce(1) == 1",
    );
}

//! Run paths for the MPI and for libpython, and the table of embedded Python sources.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the dynamic linker looks anyway. As a run path one of these could hide the chosen interpreter's libpython
/// behind the distribution's.
const SYSTEM_DIRS: [&str; 6] = [
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // mpi-sys does not watch it: without this a change of the MPI would go unnoticed.
    println!("cargo:rerun-if-env-changed=MPICC");
    let mpi = find_mpi();
    mpi.lib_paths.iter().for_each(|dir| emit_run_path(dir));
    emit_large_counts(&mpi);
    emit_launcher(&mpi);
    emit_python_run_path();
    embed_python();
}

fn find_mpi() -> build_probe_mpi::Library {
    build_probe_mpi::probe().unwrap_or_else(|reasons| {
        let reasons: Vec<String> = reasons.iter().map(|reason| reason.to_string()).collect();
        stop(&format!(
            "no MPI found ({}); put mpicc on PATH or set MPICC",
            reasons.join("; ")
        ))
    })
}

/// `IPENGINE_MPIEXEC`, the launcher beside the compiler wrapper; empty where there is none.
fn emit_launcher(mpi: &build_probe_mpi::Library) {
    let wrapper = Path::new(mpi.mpicc.as_deref().unwrap_or_default());
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|dir| dir.join(wrapper))
        .find(|file| file.is_file());
    let launcher = found.and_then(|wrapper| {
        let name = wrapper.file_name()?.to_str()?;
        let launcher = wrapper.with_file_name(name.replace("mpicc", "mpiexec"));
        (name.contains("mpicc") && launcher.is_file()).then_some(launcher)
    });
    println!(
        "cargo:rustc-env=IPENGINE_MPIEXEC={}",
        launcher.unwrap_or_default().display()
    );
}

/// `cfg(mpi_large_counts)` where the MPI has the functions of MPI 4 whose names end in `_c`: mpi4py 4 calls those.
fn emit_large_counts(mpi: &build_probe_mpi::Library) {
    println!("cargo::rustc-check-cfg=cfg(mpi_large_counts)");
    let mut compiler = Command::new(mpi.mpicc.as_deref().unwrap_or("cc"));
    for dir in &mpi.include_paths {
        compiler.arg("-I").arg(dir);
    }
    let macros = compiler
        .args(["-dM", "-E", "-x", "c", "-include", "mpi.h", "/dev/null"])
        .output();
    let macros = macros.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = macros.ok().and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("#define MPI_VERSION "))?;
        line.trim().parse::<u32>().ok()
    });
    match version {
        Some(version) if version >= 4 => println!("cargo:rustc-cfg=mpi_large_counts"),
        Some(_) => {}
        None => println!("cargo::warning=mpi.h does not tell its MPI_VERSION; taken to be 3"),
    }
}

fn emit_python_run_path() {
    let python = pyo3_build_config::get();
    if !python.shared() {
        stop(
            "this Python has only a static libpython, and an engine needs the shared one so that extension modules \
             and the engine use the same interpreter; set PYO3_PYTHON to a Python built with --enable-shared",
        );
    }
    if let Some(dir) = python.lib_dir() {
        emit_run_path(Path::new(dir));
    }
}

fn emit_run_path(dir: &Path) {
    if !SYSTEM_DIRS.iter().any(|system| Path::new(system) == dir) {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", dir.display());
    }
}

fn stop(sentence: &str) -> ! {
    println!("cargo::error={sentence}");
    std::process::exit(1);
}

/// Compiles files as the engine would at each start: argument 1 is their root, 2 where the results go.
const COMPILE: &str = "
import importlib.util, marshal, os, sys
root, out, *files = sys.argv[1:]
for file in files:
    with open(os.path.join(root, file), encoding='utf-8') as source:
        code = compile(source.read(), '<ipengine>/' + file, 'exec', dont_inherit=True)
    with open(os.path.join(out, file.replace('/', '+')), 'wb') as compiled:
        compiled.write(importlib.util.MAGIC_NUMBER + marshal.dumps(code))
";

/// Writes `embedded.rs`: one `(module, path, is_package, source, code)` per line of `python/manifest`.
fn embed_python() {
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("python");
    let manifest = root.join("manifest");
    println!("cargo:rerun-if-changed={}", manifest.display());
    let text = fs::read_to_string(&manifest)
        .unwrap_or_else(|error| stop(&format!("{}: {error}", manifest.display())));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut table = String::from("&[\n");
    let mut paths = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [module, path, package] = fields[..] else {
            stop(&format!("python/manifest: not three fields: {line}"))
        };
        let source = root.join(path);
        println!("cargo:rerun-if-changed={}", source.display());
        writeln!(
            table,
            "({module:?}, {path:?}, {package}, include_str!({:?}), include_bytes!({:?})),",
            source.display().to_string(),
            out.join(path.replace('/', "+")).display().to_string()
        )
        .expect("writing to a String");
        paths.push(path);
    }
    table.push_str("]\n");
    compile_python(&root, &out, &paths);
    let out = out.join("embedded.rs");
    fs::write(&out, table).unwrap_or_else(|error| stop(&format!("{}: {error}", out.display())));
}

/// Without the compiled code every engine would spend more time on compiling than on all else that its start runs.
fn compile_python(root: &Path, out: &Path, paths: &[&str]) {
    let python = pyo3_build_config::get();
    let Some(python) = python.executable() else {
        stop("there is no Python to compile the engine's glue with; set PYO3_PYTHON to one");
    };
    let done = Command::new(python)
        .args(["-I", "-c", COMPILE])
        .args([root, out])
        .args(paths)
        .status();
    if !done.is_ok_and(|status| status.success()) {
        stop(&format!(
            "{python} cannot compile the engine's glue; the reason is above"
        ));
    }
}

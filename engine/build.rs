//! Run paths for the MPI and for libpython, and the table of embedded Python sources.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

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
    emit_mpi_run_path();
    emit_python_run_path();
    embed_python();
}

fn emit_mpi_run_path() {
    match build_probe_mpi::probe() {
        Ok(library) => library.lib_paths.iter().for_each(|dir| emit_run_path(dir)),
        Err(reasons) => {
            let reasons: Vec<String> = reasons.iter().map(|reason| reason.to_string()).collect();
            stop(&format!(
                "no MPI found ({}); put mpicc on PATH or set MPICC",
                reasons.join("; ")
            ));
        }
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

/// Writes `embedded.rs`: one `(module, path, is_package, source)` per line of `python/manifest`.
fn embed_python() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("python");
    let manifest = root.join("manifest");
    println!("cargo:rerun-if-changed={}", manifest.display());
    let text = fs::read_to_string(&manifest)
        .unwrap_or_else(|error| stop(&format!("{}: {error}", manifest.display())));
    let mut table = String::from("&[\n");
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
            "({module:?}, {path:?}, {package}, include_str!({:?})),",
            source.display().to_string()
        )
        .expect("writing to a String");
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(&out, table).unwrap_or_else(|error| stop(&format!("{}: {error}", out.display())));
}

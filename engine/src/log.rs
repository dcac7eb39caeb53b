//! The engine's own log: warnings and errors go to the launcher's stderr, because descriptor 2 belongs to the user's code.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// Variable with the usual filter directives.
const FILTER: &str = "IPENGINE_LOG";

/// Starts logging of a rank. With `IPENGINE_LOG` set, the log goes to a file of this rank in the directory for logs.
pub fn start(logs: &Path, rank: u32, launcher: File) {
    let wanted = std::env::var_os(FILTER).is_some();
    let path = logs.join(format!("rank-{rank:04}.log"));
    let file = if wanted {
        File::options().create(true).append(true).open(path).ok()
    } else {
        None
    };
    install(Mutex::new(file.unwrap_or(launcher)));
}

/// Starts logging on stderr: the gateway's and its supervisor's is their log file, that of `serve` is the user's.
pub fn start_on_stderr(level: &str) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Only a second call could fail.
    let _ = subscriber.try_init();
}

fn install(writer: Mutex<File>) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    // Only a second call could fail.
    let _ = subscriber.try_init();
}

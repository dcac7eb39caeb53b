//! Ctrl-C, counted by a thread of its own while something is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// How often Ctrl-C was pressed since the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct CtrlC(Arc<AtomicUsize>);

impl CtrlC {
    /// Takes Ctrl-C over for the rest of the process. Where that fails, Ctrl-C ends the process as ever.
    pub(super) fn watch() -> Self {
        let count = Self::default();
        let (ours, (ready, started)) = (count.clone(), std::sync::mpsc::channel());
        let watch = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let Ok(mut interrupts) = signal(SignalKind::interrupt()) else {
                    return;
                };
                // Nobody waits any more only if the command is over.
                let _ = ready.send(());
                while interrupts.recv().await.is_some() {
                    ours.0.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        if std::thread::Builder::new()
            .name("ipsteer-signals".to_owned())
            .spawn(watch)
            .is_ok()
        {
            // An error means that the thread gave up.
            let _ = started.recv();
        }
        count
    }

    /// How often since the last call.
    pub(super) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

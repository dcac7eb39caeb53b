//! How a session begins: the I/O thread finds the cluster, connects, and tells whoever waits.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::Error;
use crate::client::Client;
use crate::connection::{self, Identity};
use crate::options::Options;
use crate::shared::Shared;

/// A connection that is being made by its I/O thread.
#[derive(Debug)]
pub struct Connecting {
    pub(crate) client: Option<Client>,
    pub(crate) opened: mpsc::Receiver<Result<PathBuf, Error>>,
}

impl Connecting {
    /// Waits up to `limit`; `None` when it takes longer.
    ///
    /// # Errors
    /// Why there is no connection.
    ///
    /// # Panics
    /// When called again after it gave the client.
    pub fn wait(&mut self, limit: Duration) -> Option<Result<Client, Error>> {
        let file = match self.opened.recv_timeout(limit) {
            Err(mpsc::RecvTimeoutError::Timeout) => return None,
            // The thread ends without a word only by a panic.
            Err(mpsc::RecvTimeoutError::Disconnected) => return Some(Err(Error::Closed)),
            Ok(Err(error)) => return Some(Err(error)),
            Ok(Ok(file)) => file,
        };
        let mut client = self.client.take().expect("the client is given once");
        client.set_file(file);
        Some(Ok(client))
    }
}

/// The I/O thread's life.
pub(crate) fn serve(options: Options, shared: &Arc<Shared>, report: &mpsc::Sender<Result<PathBuf, Error>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(report.send(Err(Error::Thread(error)))),
    };
    runtime.block_on(async {
        let identity = identity(&options);
        let opening = async {
            let access = options.which.find().await?;
            let link = connection::establish(&access, &identity, shared).await?;
            Ok((access, link))
        };
        let late = |_| {
            Err(Error::ConnectTimeout {
                seconds: options.timeout.as_secs_f64(),
                tried: Vec::new(),
            })
        };
        match tokio::time::timeout(options.timeout, opening)
            .await
            .unwrap_or_else(late)
        {
            Err(error) => drop(report.send(Err(error))),
            Ok((access, link)) => {
                // Whoever asked for the connection may have given up; then nothing is left to do.
                if report.send(Ok(access.file.clone())).is_ok() {
                    connection::run(link, access, identity).await;
                }
            }
        }
    });
    shared.lock().gone = true;
    shared.announce_all();
}

fn identity(options: &Options) -> Identity {
    let user = options.user.clone().unwrap_or_else(|| {
        let known = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = known.map_or_else(|| "somebody".to_owned(), |user| user.name);
        let host = nix::unistd::gethostname()
            .map(|host| host.to_string_lossy().into_owned())
            .unwrap_or_default();
        format!("{user}@{host}")
    });
    Identity {
        user,
        software: options.software.clone(),
        python: options.python,
    }
}

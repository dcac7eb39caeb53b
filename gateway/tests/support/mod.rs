//! A gateway in a thread of its own, clients on real WebSockets and engines on real control links.
//!
//! Every wait has a limit; a test that exceeds it fails with what it waited for.

#![expect(dead_code, reason = "each test file uses its part of this module")]

pub mod client;
pub mod engine;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipengine_gateway::{Config, Ended, LauncherReport, Limits, Listeners, certificate, serve_within};
use ipengine_protocol::handshake::{EXPORTER_LABEL, Secret};
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use client::Client;
use engine::Engine;

/// No single step of a test takes longer.
pub const STEP: Duration = Duration::from_secs(20);

/// Waits for something, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(STEP, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A running gateway. Its files vanish with it.
pub struct Gateway {
    pub directory: TempDir,
    pub client_secret: Secret,
    pub engine_secret: Secret,
    pub certificate: Vec<u8>,
    pub address: SocketAddr,
    pub launcher: Option<mpsc::Sender<LauncherReport>>,
    ended: oneshot::Receiver<Ended>,
}

impl Gateway {
    /// Starts one whose launcher nobody hears.
    pub async fn start(size: u32) -> Self {
        Self::start_with(size, false, |_, _| {}).await
    }

    /// Starts one with other settings and limits.
    pub async fn start_with(
        size: u32,
        launcher: bool,
        change: impl FnOnce(&mut Config, &mut Limits),
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let (certificate, key) = certificate::self_signed(&["localhost".to_owned()]).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (client_secret, engine_secret) = (secret(), secret());
        let mut config = Config {
            cluster: "test".to_owned(),
            job: Some("slurm-4711".to_owned()),
            size,
            software: "gateway test".to_owned(),
            run_dir: path("run"),
            access_file: path("test.json"),
            client_socket: path("client"),
            engine_socket: path("engine"),
            urls: vec![format!("wss://{address}/")],
            host: "here".to_owned(),
            launcher: true,
            restarted: false,
            linger: 60,
            client_secret: client_secret.to_hex(),
            engine_secret: engine_secret.to_hex(),
            certificate: certificate.clone(),
            key,
        };
        let mut limits = Limits::default();
        change(&mut config, &mut limits);
        let listeners = Listeners {
            tcp: Some(tcp),
            clients: UnixListener::bind(&config.client_socket).unwrap(),
            engines: UnixListener::bind(&config.engine_socket).unwrap(),
        };
        let (sender, receiver) = mpsc::channel(16);
        let ended = run_in_thread(limits, config, listeners, receiver).await;
        let launcher = launcher.then_some(sender);
        Self {
            directory,
            client_secret,
            engine_secret,
            certificate,
            address,
            launcher,
            ended,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Engines on Unix sockets, all ranks.
    pub async fn engines(&self, size: u32) -> Vec<Engine> {
        let mut engines = Vec::new();
        for rank in 0..size {
            engines.push(Engine::connect(self, rank, size).await);
        }
        engines
    }

    /// A client on the Unix socket.
    pub async fn client(&self) -> Client {
        Client::connect(self, client_id(), 0).await
    }

    /// How the gateway ended; waits for it.
    pub async fn ended(&mut self) -> Ended {
        within("the gateway's end", &mut self.ended)
            .await
            .expect("the gateway ends without error")
    }

    pub async fn tls(&self, alpn: &[u8]) -> (TlsStream<TcpStream>, Vec<u8>) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.clone())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = if alpn.is_empty() {
            vec![]
        } else {
            vec![alpn.to_vec()]
        };
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
            .unwrap();
        let binding = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .unwrap();
        (stream, binding.to_vec())
    }
}

async fn run_in_thread(
    limits: Limits,
    config: Config,
    listeners: Listeners,
    launcher: mpsc::Receiver<LauncherReport>,
) -> oneshot::Receiver<Ended> {
    let (ready, is_ready) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let result = runtime.block_on(serve_within(limits, config, listeners, launcher, ready));
        match result {
            // A test that does not care has dropped the receiver.
            Ok(ended) => drop(end.send(ended)),
            Err(error) => eprintln!("the gateway failed: {error}"),
        }
    });
    within("the gateway to be ready", is_ready).await.unwrap();
    ended
}

pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

pub fn client_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).unwrap();
    id
}

pub fn secret() -> Secret {
    Secret::new(random())
}

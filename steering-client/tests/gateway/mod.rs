//! A gateway for tests: the real protocol over real sockets, but every word of it comes from the test.
//!
//! Its own thread does the I/O; the test hears what clients say in order and answers when it wants to.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ipengine_protocol::event::EventEnvelope;
use ipengine_protocol::frame::{MAX_PAYLOAD_LEN, frames};
use ipengine_protocol::handshake::{EXPORTER_LABEL, HandshakeError, Role, Secret, ServerSide};
use ipengine_protocol::{
    AccessRecord, Assembler, Credit, EngineId, EngineInfo, Event, Incoming, Message, PythonVersion, Request,
    Welcome,
};
use ipsteer::client::{Connecting, Options};
use ipsteer::{Client, Which};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use tokio_tungstenite::tungstenite::Message as Ws;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// No step of a test takes longer.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What the gateway hears.
#[derive(Debug)]
pub enum Heard {
    /// A client has proved itself; say things to it through this.
    Connected(UnboundedSender<Say>),
    /// A request and its blobs.
    Request(Request, Vec<Bytes>),
    /// The connection ended.
    Closed,
    /// A client failed the introduction, or hung up on ours.
    Refused(HandshakeError),
}

/// What the test makes it do on a connection.
#[derive(Debug)]
pub enum Say {
    /// Send this event.
    Event(Box<EventEnvelope>, Vec<Bytes>),
    /// Cut the connection without a word.
    Cut,
    /// Close the connection with this code and text.
    Close(u16, &'static str),
}

/// How the gateway introduces itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Introduction {
    /// As a gateway does.
    Proper,
    /// As one that speaks only a version that does not exist yet.
    OfTheFuture,
}

/// The gateway.
pub struct FakeGateway {
    /// Holds connection file and socket.
    pub dir: tempfile::TempDir,
    /// What the connection file says.
    pub record: AccessRecord,
    heard: Receiver<Heard>,
    current: Option<UnboundedSender<Say>>,
    number: u64,
}

impl FakeGateway {
    /// On a Unix socket.
    pub fn unix() -> Self {
        Self::start(false, Introduction::Proper)
    }

    /// On a TCP port with TLS.
    pub fn tls() -> Self {
        Self::start(true, Introduction::Proper)
    }

    /// Either.
    pub fn start(tls: bool, introduction: Introduction) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = Secret::new([7; 32]);
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let fingerprint: [u8; 32] = Sha256::digest(certified.cert.der()).into();
        let socket = dir.path().join("clients.sock");
        let (say_address, address) = channel();
        let (tell, heard) = channel();
        let serving = Serving {
            secret: secret.clone(),
            tell,
            introduction,
        };
        let listen = if tls {
            Listen::Tls(Box::new(tls_config(&certified)))
        } else {
            Listen::Unix(socket.clone())
        };
        std::thread::spawn(move || serving.run(listen, &say_address));
        let urls = address.recv_timeout(LIMIT).expect("the gateway listens");
        let record = AccessRecord {
            format: 1,
            cluster: "fake".to_owned(),
            job: None,
            size: 4,
            host: "localhost".to_owned(),
            started: 1,
            gateway_pid: std::process::id(),
            urls,
            unix: (!tls).then(|| socket.to_string_lossy().into_owned()),
            fingerprint: fingerprint.iter().map(|byte| format!("{byte:02x}")).collect(),
            token: Some(secret.to_hex()),
            run_dir: dir.path().to_string_lossy().into_owned(),
            mpi: "none".to_owned(),
            python: "3.11.7".to_owned(),
            ended: None,
        };
        let gateway = Self {
            dir,
            record,
            heard,
            current: None,
            number: 0,
        };
        gateway.write_file();
        gateway
    }

    /// The connection file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("fake.json")
    }

    /// Writes the connection file as `record` is now.
    pub fn write_file(&self) {
        fs::write(self.file(), serde_json::to_vec(&self.record).expect("JSON")).expect("a file");
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600)).expect("permissions");
    }

    /// Options that lead here.
    pub fn options(&self) -> Options {
        Options {
            which: Which {
                file: Some(self.file()),
                ..Which::default()
            },
            ..Options::default()
        }
    }

    /// A client with a session of four engines.
    pub fn connect(&mut self) -> Client {
        let connecting = Client::start(self.options()).expect("a thread");
        self.open(0, generous());
        finish(connecting).expect("a session")
    }

    /// Waits for `Open` and answers it; returns its `events_seen`.
    pub fn open(&mut self, accepted: u64, credit: Credit) -> u64 {
        let seen = loop {
            match self.hear() {
                Heard::Request(Request::Open { events_seen, .. }, _) => break events_seen,
                Heard::Connected(_) | Heard::Closed => {}
                other => panic!("expected Open, heard {other:?}"),
            }
        };
        self.welcome(accepted, credit);
        seen
    }

    /// Answers `Open`.
    pub fn welcome(&mut self, accepted: u64, credit: Credit) {
        let welcome = Welcome {
            cluster: "fake".to_owned(),
            software: "fake".to_owned(),
            engines: (0..4).map(engine_info).collect(),
            accepted,
            credit,
            event_window: 1 << 20,
            ended: None,
        };
        self.number = if accepted == 0 { 0 } else { self.number };
        self.say_unnumbered(Event::Welcome(Box::new(welcome)));
    }

    /// The next thing that is heard.
    pub fn hear(&mut self) -> Heard {
        let heard = self.heard.recv_timeout(LIMIT).expect("a client says something");
        if let Heard::Connected(say) = &heard {
            self.current = Some(say.clone());
        }
        heard
    }

    /// The next request that is no ack.
    pub fn request(&mut self) -> (Request, Vec<Bytes>) {
        loop {
            match self.hear() {
                Heard::Request(Request::Ack { .. }, _) => {}
                Heard::Request(request, blobs) => return (request, blobs),
                other => panic!("expected a request, heard {other:?}"),
            }
        }
    }

    /// The counter of the next submit, which is accepted.
    pub fn submit(&mut self) -> u64 {
        let counter = self.unaccepted_submit();
        self.say_unnumbered(Event::Accepted { up_to: counter });
        counter
    }

    /// The counter of the next submit.
    pub fn unaccepted_submit(&mut self) -> u64 {
        match self.request() {
            (Request::Submit(submit), _) => submit.counter,
            other => panic!("expected Submit, heard {other:?}"),
        }
    }

    /// Sends the next numbered event.
    pub fn say(&mut self, event: Event, blobs: Vec<Bytes>) {
        self.number += 1;
        self.say_as(self.number, event, blobs);
    }

    /// Sends an event with a number of the test's choice.
    pub fn say_as(&mut self, number: u64, event: Event, blobs: Vec<Bytes>) {
        let envelope = Box::new(EventEnvelope { number, event });
        self.current
            .as_ref()
            .expect("a connection")
            .send(Say::Event(envelope, blobs))
            .expect("it is open");
    }

    /// Sends an event without number.
    pub fn say_unnumbered(&mut self, event: Event) {
        self.say_as(0, event, Vec::new());
    }

    /// Closes the connection with a code and a text.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        self.current
            .take()
            .expect("a connection")
            .send(Say::Close(code, reason))
            .expect("it is open");
    }

    /// Cuts the connection.
    pub fn cut(&mut self) {
        self.current
            .take()
            .expect("a connection")
            .send(Say::Cut)
            .expect("it is open");
    }
}

/// Credit for everything.
pub fn generous() -> Credit {
    Credit {
        instructions: 1 << 40,
        bytes: 1 << 40,
    }
}

/// The client, or why there is none.
pub fn finish(mut connecting: Connecting) -> Result<Client, ipsteer::Error> {
    connecting.wait(LIMIT).expect("an answer in time")
}

fn engine_info(rank: u32) -> EngineInfo {
    EngineInfo {
        id: EngineId(rank),
        host: "localhost".to_owned(),
        pid: 1000 + rank,
        python: PythonVersion(3, 11, 7),
        mpi: "none".to_owned(),
        lost: None,
    }
}

fn tls_config(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate and its key")
}

enum Listen {
    Unix(PathBuf),
    Tls(Box<ServerConfig>),
}

#[derive(Clone)]
struct Serving {
    secret: Secret,
    tell: Sender<Heard>,
    introduction: Introduction,
}

impl Serving {
    fn run(self, listen: Listen, say_address: &Sender<Vec<String>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            match listen {
                Listen::Unix(path) => {
                    let listener = UnixListener::bind(path).expect("a socket");
                    say_address.send(Vec::new()).expect("the test waits");
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(self.clone().serve(stream, Vec::new()));
                    }
                }
                Listen::Tls(config) => {
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                    let address = listener.local_addr().expect("an address");
                    say_address
                        .send(vec![format!("wss://{address}/")])
                        .expect("the test waits");
                    let acceptor = TlsAcceptor::from(Arc::new(*config));
                    while let Ok((stream, _)) = listener.accept().await {
                        let Ok(stream) = acceptor.accept(stream).await else {
                            continue;
                        };
                        let binding = stream
                            .get_ref()
                            .1
                            .export_keying_material(vec![0; 32], EXPORTER_LABEL, None)
                            .expect("TLS");
                        tokio::spawn(self.clone().serve(stream, binding));
                    }
                }
            }
        });
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, binding: Vec<u8>) {
        let mut socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("a WebSocket");
        let Some(Ok(Ws::Binary(hello))) = socket.next().await else {
            return;
        };
        let side = ServerSide::on_client_hello(&hello, |_| Some(self.secret.clone()), &binding, [9; 32])
            .expect("a client");
        let mut answer = side.answer().to_vec();
        if self.introduction == Introduction::OfTheFuture {
            // status 1, oldest and newest 99
            answer[8] = 1;
            answer[12..16].copy_from_slice(&[99, 0, 99, 0]);
        }
        socket.send(Ws::Binary(answer.into())).await.expect("to answer");
        let proof = match socket.next().await {
            Some(Ok(Ws::Binary(proof))) => proof,
            _ => return drop(self.tell.send(Heard::Refused(HandshakeError::ServerProof))),
        };
        let verdict = side.on_proof(&proof);
        socket
            .send(Ws::Binary(vec![u8::from(verdict.is_ok())].into()))
            .await
            .expect("to answer");
        match verdict {
            Ok((Role::Client, _)) => self.converse(socket).await,
            Ok((Role::Engine, _)) => panic!("an engine came"),
            Err(error) => drop(self.tell.send(Heard::Refused(error))),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut socket: tokio_tungstenite::WebSocketStream<S>,
    ) {
        let (say, mut said) = unbounded_channel();
        let mut assembler = Assembler::new(MAX_PAYLOAD_LEN);
        // A test that is over hears nothing.
        let _ = self.tell.send(Heard::Connected(say));
        loop {
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Ws::Binary(bytes))) => {
                        if let Incoming::Message(message) = assembler.take(bytes).expect("a frame") {
                            let request = message.decode().expect("a request");
                            let _ = self.tell.send(Heard::Request(request, message.blobs));
                        }
                    }
                    Some(Ok(Ws::Ping(_) | Ws::Pong(_))) => {}
                    _ => break,
                },
                word = said.recv() => match word {
                    Some(Say::Event(envelope, blobs)) => {
                        for frame in frames(&Message::new(&*envelope, blobs), 1) {
                            socket.send(Ws::Binary(frame.into_bytes())).await.expect("to send");
                        }
                    }
                    Some(Say::Close(code, reason)) => {
                        let frame = CloseFrame { code: code.into(), reason: reason.into() };
                        socket.close(Some(frame)).await.expect("to close");
                    }
                    Some(Say::Cut) | None => break,
                },
            }
        }
        let _ = self.tell.send(Heard::Closed);
    }
}

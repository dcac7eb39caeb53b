//! A client that speaks the protocol by hand: rightly, or wrongly where a test wants it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use ipengine_protocol::handshake::{ClientSide, HandshakeError, PROOF_LEN, Role, SERVER_HELLO_LEN, Secret};
use ipengine_protocol::{
    Assembler, ClientId, EngineId, Event, EventEnvelope, Incoming, Message, Outcome, Request, Submit,
    Targets, Work, frame,
};
use sha2::Sha256;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message as WebMessage, WebSocket, client};

use crate::job::MpiJob;
use crate::tls;
use crate::waiting::LIMIT;

/// Anything that carries bytes both ways.
pub trait Channel: Read + Write + Send {}
impl<T: Read + Write + Send> Channel for T {}

/// A connection to a gateway's client door, upgraded to a WebSocket and nothing more.
pub struct RawClient {
    web: WebSocket<Box<dyn Channel>>,
    binding: Vec<u8>,
    assembler: Assembler,
    counter: u64,
}

/// 32 random bytes.
///
/// # Panics
/// When the system has none.
#[must_use]
pub fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).expect("random bytes");
    nonce
}

/// The request that begins a conversation.
#[must_use]
pub fn opening(id: [u8; 16]) -> Request {
    Request::Open {
        client: ClientId(id),
        user: "raw".to_owned(),
        software: "test".to_owned(),
        python: None,
        events_seen: 0,
    }
}

/// The client secret of a job.
///
/// # Panics
/// When the connection file has none.
#[must_use]
pub fn secret(job: &MpiJob) -> Secret {
    Secret::from_hex(&job.record().token.expect("a token")).expect("64 hexadecimal digits")
}

/// A client's proof, as the specification of the handshake says; for clients that give one where ours hang up.
///
/// # Panics
/// When `secret` is none.
#[must_use]
pub fn client_proof(secret: &Secret, hello: &[u8], answer: &[u8], binding: &[u8]) -> Vec<u8> {
    let digits = secret.to_hex();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    let key: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any key length");
    mac.update(b"ipengine-mpi client");
    for part in [hello, answer, binding] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// A connection to the Unix socket for clients.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn unix(job: &MpiJob) -> UnixStream {
    let stream = UnixStream::connect(job.record().unix.expect("a Unix socket")).expect("the gateway accepts");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
}

/// The TCP port of a job's gateway, on this host.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn tcp_address(job: &MpiJob) -> SocketAddr {
    let url = job.record().urls.into_iter().next().expect("a TCP address");
    let port = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a number");
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl RawClient {
    /// Over the Unix socket.
    #[must_use]
    pub fn over_unix(job: &MpiJob) -> Self {
        Self::upgrade(Box::new(unix(job)), Vec::new())
    }

    /// Over TLS to `address`, whatever its certificate.
    #[must_use]
    pub fn over_tls(address: SocketAddr) -> Self {
        let (stream, binding) = tls::connect(address);
        Self::upgrade(Box::new(stream), binding)
    }

    fn upgrade(stream: Box<dyn Channel>, binding: Vec<u8>) -> Self {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(frame::MAX_FRAME_LEN))
            .max_frame_size(Some(frame::MAX_FRAME_LEN));
        let upgraded = client::client_with_config("ws://gateway/", stream, Some(limits));
        let (web, _) = upgraded.unwrap_or_else(|error| panic!("no WebSocket: {error}"));
        Self {
            web,
            binding,
            assembler: Assembler::new(u64::MAX),
            counter: 0,
        }
    }

    /// Sends one binary message. A gateway that has hung up does not matter here: the next read tells.
    pub fn send(&mut self, bytes: impl Into<Bytes>) {
        let _ = self.web.send(WebMessage::Binary(bytes.into()));
    }

    /// Sends one text message.
    pub fn send_text(&mut self, text: &str) {
        let _ = self.web.send(WebMessage::Text(text.into()));
    }

    /// The next binary message, or the reason for which the gateway hung up.
    ///
    /// # Errors
    /// The close frame's reason, empty without one.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub fn receive(&mut self) -> Result<Bytes, String> {
        loop {
            match self.web.read() {
                Ok(WebMessage::Binary(bytes)) => return Ok(bytes),
                Ok(WebMessage::Close(close)) => {
                    return Err(close.map_or_else(String::new, |close| close.reason.to_string()));
                }
                Ok(_) => {}
                Err(tokio_tungstenite::tungstenite::Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    panic!("the gateway is silent");
                }
                Err(_) => return Err(String::new()),
            }
        }
    }

    /// Reads until the gateway hangs up; its reason.
    pub fn hung_up(&mut self) -> String {
        loop {
            if let Err(reason) = self.receive() {
                return reason;
            }
        }
    }

    /// The handshake, done rightly with this secret.
    ///
    /// # Errors
    /// What either side finds wrong.
    pub fn prove(&mut self, secret: Secret) -> Result<(), HandshakeError> {
        let side = ClientSide::new(Role::Client, secret, &self.binding, nonce());
        self.send(side.hello().to_vec());
        let answer = self.receive().unwrap_or_default();
        let (proof, _) = side.on_server_hello(&answer)?;
        self.send(proof.to_vec());
        let verdict = self.receive().unwrap_or_default();
        side.on_verdict(&verdict)
    }

    /// The handshake without a look at the server's proof; the verdict, or the reason for which the gateway hung up.
    ///
    /// # Errors
    /// The reason.
    pub fn prove_blindly(&mut self, secret: &Secret) -> Result<Bytes, String> {
        let hello = ClientSide::new(Role::Client, secret.clone(), &self.binding, nonce()).hello();
        self.send(hello.to_vec());
        let answer = self.receive()?;
        assert_eq!(answer.len(), SERVER_HELLO_LEN);
        let proof = client_proof(secret, &hello, &answer, &self.binding);
        assert_eq!(proof.len(), PROOF_LEN);
        self.send(proof);
        self.receive()
    }

    /// Handshake and `Open`, and the welcome.
    ///
    /// # Panics
    /// When the gateway does not welcome it.
    pub fn open(&mut self, job: &MpiJob) {
        self.prove(secret(job)).expect("the token is right");
        let [id, _] = *nonce().as_chunks().0 else {
            unreachable!("32 bytes are twice 16")
        };
        self.request(&opening(id), Vec::new());
        let welcome = self.event(|event, _| matches!(event, Event::Welcome(_)).then_some(()));
        welcome.expect("a welcome");
    }

    /// Sends a request.
    pub fn request(&mut self, request: &Request, blobs: Vec<Bytes>) {
        for frame in frame::frames(&Message::new(request, blobs), 1) {
            self.send(frame.into_bytes());
        }
    }

    /// Submits work; returns its counter.
    pub fn submit(&mut self, targets: &[u32], work: Work) -> u64 {
        self.counter += 1;
        let targets = Targets::All(targets.iter().copied().map(EngineId).collect());
        let submit = Submit {
            counter: self.counter,
            targets,
            work,
            each: None,
            label: None,
        };
        self.request(&Request::Submit(submit), Vec::new());
        self.counter
    }

    /// The first event for which `pick` gives something.
    ///
    /// # Errors
    /// The reason for which the gateway hung up.
    ///
    /// # Panics
    /// When the gateway sends what is no event.
    pub fn event<T>(&mut self, mut pick: impl FnMut(&Event, &[Bytes]) -> Option<T>) -> Result<T, String> {
        loop {
            let bytes = self.receive()?;
            let Incoming::Message(message) = self.assembler.take(bytes).expect("a frame") else {
                continue;
            };
            let envelope: EventEnvelope = message.decode().expect("an event");
            if envelope.number > 0 {
                // A gateway would wait for a client that has not fetched what it was sent.
                self.request(
                    &Request::Ack {
                        events: envelope.number,
                    },
                    Vec::new(),
                );
            }
            if let Some(found) = pick(&envelope.event, &message.blobs) {
                return Ok(found);
            }
        }
    }

    /// Why the gateway rejects an instruction.
    ///
    /// # Panics
    /// When it does not.
    pub fn rejection(&mut self, wanted: u64) -> String {
        let reason = self.event(|event, _| match event {
            Event::Rejected { counter, reason } if *counter == wanted => Some(reason.clone()),
            _ => None,
        });
        reason.expect("the connection lives")
    }

    /// So many outcomes of an instruction, in the order of arrival.
    ///
    /// # Panics
    /// When they do not come.
    pub fn outcomes(&mut self, wanted: u64, count: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            let outcome = self.event(|event, _| match event {
                Event::Finished { counter, outcome, .. } if *counter == wanted => Some(outcome.clone()),
                _ => None,
            });
            outcomes.push(outcome.expect("the connection lives"));
        }
        outcomes
    }
}

/// Listens at `path` as a gateway that speaks versions `oldest` to `newest` only, for one client.
///
/// # Panics
/// When it cannot listen.
pub fn other_version_at(path: &Path, oldest: u16, newest: u16) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        let Ok(mut web) = tokio_tungstenite::tungstenite::accept(stream) else {
            return;
        };
        // What it hears is a hello whose versions do not matter.
        if web.read().is_ok() {
            let mut answer = [0; SERVER_HELLO_LEN];
            answer[..8].copy_from_slice(b"IPENGMPI");
            answer[8] = 1;
            answer[12..14].copy_from_slice(&oldest.to_le_bytes());
            answer[14..16].copy_from_slice(&newest.to_le_bytes());
            let _ = web.send(WebMessage::Binary(Bytes::copy_from_slice(&answer)));
            // Until the client hangs up.
            while web.read().is_ok() {}
        }
    });
}

//! A client that does only what a test tells it.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ipengine_protocol::handshake::{ClientSide, HandshakeError, Role, Secret};
use ipengine_protocol::{
    Answer, Assembler, ClientId, EngineId, Event, EventEnvelope, Incoming, Message, Outcome, Request, Submit,
    Targets, Welcome, Work, frame,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WebMessage;

use super::{Gateway, client_id, random, within};

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub type Web = WebSocketStream<Box<dyn Stream>>;

pub struct Client {
    pub web: Web,
    pub id: [u8; 16],
    pub welcome: Welcome,
    assembler: Assembler,
    last_counter: u64,
    pub last_event: u64,
    transfer: u32,
}

/// Upgrades a stream to a WebSocket.
pub async fn upgrade(stream: Box<dyn Stream>) -> Web {
    let limit = tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default()
        .max_message_size(Some(frame::MAX_FRAME_LEN))
        .max_frame_size(Some(frame::MAX_FRAME_LEN));
    let connected = tokio_tungstenite::client_async_with_config("ws://localhost/", stream, Some(limit));
    within("the upgrade", connected).await.unwrap().0
}

pub async fn receive_binary(web: &mut Web) -> Option<Bytes> {
    loop {
        match within("a WebSocket message", web.next()).await {
            Some(Ok(WebMessage::Binary(bytes))) => return Some(bytes),
            Some(Ok(WebMessage::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// Code and reason of the close frame that must come next or after other messages; nothing if the connection just ends.
pub async fn close_frame(web: &mut Web) -> Option<(u16, String)> {
    loop {
        match within("the close frame", web.next()).await {
            Some(Ok(WebMessage::Close(close))) => {
                return close.map(|close| (close.code.into(), close.reason.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

/// The reason alone; empty if the connection just ends.
pub async fn close_reason(web: &mut Web) -> String {
    close_frame(web)
        .await
        .map_or_else(String::new, |(_, reason)| reason)
}

/// Proves the secret.
pub async fn prove(web: &mut Web, role: Role, secret: Secret, binding: &[u8]) -> Result<(), HandshakeError> {
    let side = ClientSide::new(role, secret, binding, random());
    web.send(WebMessage::Binary(side.hello().to_vec().into()))
        .await
        .unwrap();
    let answer = receive_binary(web).await.unwrap_or_default();
    let (proof, _) = side.on_server_hello(&answer)?;
    web.send(WebMessage::Binary(proof.to_vec().into())).await.unwrap();
    let verdict = receive_binary(web).await.unwrap_or_default();
    side.on_verdict(&verdict)
}

impl Client {
    pub async fn connect(gateway: &Gateway, id: [u8; 16], events_seen: u64) -> Self {
        let socket = UnixStream::connect(gateway.path("client")).await.unwrap();
        Self::greet(gateway, Box::new(socket), &[], id, events_seen).await
    }

    pub async fn connect_tls(gateway: &Gateway, alpn: &[u8]) -> Self {
        let (stream, binding) = gateway.tls(alpn).await;
        Self::greet(gateway, Box::new(stream), &binding, client_id(), 0).await
    }

    async fn greet(
        gateway: &Gateway,
        stream: Box<dyn Stream>,
        binding: &[u8],
        id: [u8; 16],
        seen: u64,
    ) -> Self {
        let mut web = upgrade(stream).await;
        prove(&mut web, Role::Client, gateway.client_secret.clone(), binding)
            .await
            .unwrap();
        let welcome = Welcome {
            cluster: String::new(),
            software: String::new(),
            engines: vec![],
            accepted: 0,
            credit: ipengine_protocol::Credit::default(),
            event_window: 0,
            ended: None,
        };
        let assembler = Assembler::new(u64::MAX);
        let mut client = Self {
            web,
            id,
            welcome,
            assembler,
            last_counter: 0,
            last_event: seen,
            transfer: 0,
        };
        client.open(seen).await;
        let (envelope, _) = client.receive().await;
        let Event::Welcome(welcome) = envelope.event else {
            panic!("no welcome but {envelope:?}")
        };
        client.last_counter = welcome.accepted;
        client.welcome = *welcome;
        client
    }

    pub async fn open(&mut self, events_seen: u64) {
        let open = Request::Open {
            client: ClientId(self.id),
            user: "ada".to_owned(),
            software: "test".to_owned(),
            python: None,
            events_seen,
        };
        self.send(&open, vec![]).await;
    }

    /// A second connection of the same client, which has seen these events.
    pub async fn again(&self, gateway: &Gateway, events_seen: u64) -> Self {
        Self::connect(gateway, self.id, events_seen).await
    }

    pub async fn send(&mut self, request: &Request, blobs: Vec<Bytes>) {
        self.transfer += 1;
        let message = Message::new(request, blobs);
        for frame in frame::frames(&message, self.transfer) {
            self.web
                .feed(WebMessage::Binary(frame.into_bytes()))
                .await
                .unwrap();
        }
        within("the request to leave", self.web.flush()).await.unwrap();
    }

    pub async fn submit_work(
        &mut self,
        targets: Targets,
        work: Work,
        blobs: Vec<Bytes>,
        each: Option<Vec<u32>>,
    ) -> u64 {
        self.last_counter += 1;
        let submit = Submit {
            counter: self.last_counter,
            targets,
            work,
            each,
            label: None,
        };
        self.send(&Request::Submit(submit), blobs).await;
        self.last_counter
    }

    pub async fn submit(&mut self, targets: &[u32]) -> u64 {
        let targets = Targets::All(targets.iter().copied().map(EngineId).collect());
        self.submit_work(targets, Work::Clear, vec![], None).await
    }

    pub async fn submit_one_of(&mut self, targets: &[u32]) -> u64 {
        let targets = Targets::OneOf(targets.iter().copied().map(EngineId).collect());
        self.submit_work(targets, Work::Clear, vec![], None).await
    }

    pub async fn receive(&mut self) -> (EventEnvelope, Vec<Bytes>) {
        loop {
            let bytes = receive_binary(&mut self.web).await.expect("the connection lives");
            if let Incoming::Message(message) = self.assembler.take(bytes).unwrap() {
                let envelope: EventEnvelope = message.decode().unwrap();
                if envelope.number > 0 {
                    assert_eq!(
                        envelope.number,
                        self.last_event + 1,
                        "events are numbered without gaps"
                    );
                    self.last_event = envelope.number;
                }
                return (envelope, message.blobs);
            }
        }
    }

    /// The next event for which `pick` gives something.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event, &[Bytes]) -> Option<T>) -> T {
        loop {
            let (envelope, blobs) = self.receive().await;
            if let Some(found) = pick(&envelope.event, &blobs) {
                return found;
            }
        }
    }

    /// The next outcome.
    pub async fn outcome(&mut self) -> (u64, u32, Outcome) {
        self.wait_for(|event, _| match event {
            Event::Finished {
                counter,
                engine,
                outcome,
                ..
            } => Some((*counter, engine.0, outcome.clone())),
            _ => None,
        })
        .await
    }

    pub async fn rejection(&mut self) -> (u64, String) {
        self.wait_for(|event, _| match event {
            Event::Rejected { counter, reason } => Some((*counter, reason.clone())),
            _ => None,
        })
        .await
    }

    pub async fn answer(&mut self) -> (u64, Answer) {
        self.wait_for(|event, _| match event {
            Event::Answer { request, answer } => Some((*request, answer.clone())),
            _ => None,
        })
        .await
    }

    pub async fn end(&mut self) -> String {
        self.wait_for(|event, _| match event {
            Event::Ended { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub async fn ack(&mut self) {
        let events = self.last_event;
        self.send(&Request::Ack { events }, vec![]).await;
    }
}

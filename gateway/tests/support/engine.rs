//! An engine that does only what a test tells it.

use bytes::{Bytes, BytesMut};
use ipengine_protocol::handshake::{ClientSide, HandshakeError, PROOF_LEN, Role, SERVER_HELLO_LEN, Secret};
use ipengine_protocol::{
    Assembler, EngineFacts, EngineId, FromEngine, FromEngineEnvelope, Incoming, Message, Order, Outcome,
    PythonVersion, Timing, ToEngine, ValueHead, frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client::Stream;
use super::{Gateway, random, within};

pub struct Engine {
    pub stream: Box<dyn Stream>,
    pub rank: u32,
    size: u32,
    assembler: Assembler,
    last: u64,
    pub seen: u64,
    transfer: u32,
    /// Messages up to here have been taken over.
    pub acked: u64,
}

/// Proves the secret on a raw stream.
pub async fn prove(
    stream: &mut dyn Stream,
    role: Role,
    secret: Secret,
    binding: &[u8],
) -> Result<(), HandshakeError> {
    let side = ClientSide::new(role, secret, binding, random());
    stream.write_all(&side.hello()).await.unwrap();
    let mut answer = [0; SERVER_HELLO_LEN];
    if within("the answer", stream.read_exact(&mut answer))
        .await
        .is_err()
    {
        return Err(HandshakeError::NotOurs);
    }
    let (proof, _) = side.on_server_hello(&answer)?;
    let proof: [u8; PROOF_LEN] = proof;
    stream.write_all(&proof).await.unwrap();
    let mut verdict = [0];
    within("the verdict", stream.read_exact(&mut verdict))
        .await
        .unwrap();
    side.on_verdict(&verdict)
}

fn facts(rank: u32, size: u32, seen: u64) -> FromEngine {
    FromEngine::Hello(Box::new(EngineFacts {
        id: EngineId(rank),
        size,
        host: "here".to_owned(),
        pid: std::process::id(),
        python: PythonVersion(3, 11, 7),
        mpi: "test MPI".to_owned(),
        orders_seen: Order(seen),
    }))
}

/// Only the first message.
pub async fn say_hello(stream: &mut dyn Stream, rank: u32, size: u32) {
    let message = Message::bare(&FromEngineEnvelope {
        number: 0,
        message: facts(rank, size, 0),
    });
    let mut bytes = BytesMut::new();
    frame::frames(&message, 1).for_each(|frame| frame.append_prefixed(&mut bytes));
    stream.write_all(&bytes).await.unwrap();
}

impl Engine {
    pub async fn connect(gateway: &Gateway, rank: u32, size: u32) -> Self {
        let socket = UnixStream::connect(gateway.path("engine")).await.unwrap();
        Self::greet(gateway, Box::new(socket), &[], rank, size).await
    }

    pub async fn connect_tls(gateway: &Gateway, rank: u32, size: u32) -> Self {
        let (stream, binding) = gateway.tls(b"ipengine-link/1").await;
        Self::greet(gateway, Box::new(stream), &binding, rank, size).await
    }

    async fn greet(
        gateway: &Gateway,
        mut stream: Box<dyn Stream>,
        binding: &[u8],
        rank: u32,
        size: u32,
    ) -> Self {
        prove(&mut *stream, Role::Engine, gateway.engine_secret.clone(), binding)
            .await
            .unwrap();
        let assembler = Assembler::new(u64::MAX);
        let mut engine = Self {
            stream,
            rank,
            size,
            assembler,
            last: 0,
            seen: 0,
            transfer: 0,
            acked: 0,
        };
        engine.hello().await;
        engine
    }

    async fn hello(&mut self) {
        let hello = facts(self.rank, self.size, self.seen);
        self.send_numbered(0, hello, vec![]).await;
        let (welcome, _) = self.receive().await;
        let ToEngine::Welcome { received } = welcome else {
            panic!("no welcome but {welcome:?}")
        };
        self.last = received;
    }

    /// The same engine on a new link.
    pub async fn again(self, gateway: &Gateway) -> Self {
        let Self {
            stream,
            rank,
            size,
            seen,
            acked,
            ..
        } = self;
        drop(stream);
        let socket = UnixStream::connect(gateway.path("engine")).await.unwrap();
        let mut stream: Box<dyn Stream> = Box::new(socket);
        prove(&mut *stream, Role::Engine, gateway.engine_secret.clone(), &[])
            .await
            .unwrap();
        let assembler = Assembler::new(u64::MAX);
        let mut engine = Self {
            stream,
            rank,
            size,
            assembler,
            last: 0,
            seen,
            transfer: 0,
            acked,
        };
        engine.hello().await;
        engine
    }

    pub async fn send_numbered(&mut self, number: u64, message: FromEngine, blobs: Vec<Bytes>) {
        self.transfer += 1;
        let message = Message::new(&FromEngineEnvelope { number, message }, blobs);
        let mut bytes = BytesMut::new();
        frame::frames(&message, self.transfer).for_each(|frame| frame.append_prefixed(&mut bytes));
        within("the message to leave", self.stream.write_all(&bytes))
            .await
            .unwrap();
    }

    pub async fn send(&mut self, message: FromEngine, blobs: Vec<Bytes>) {
        self.last += 1;
        self.send_numbered(self.last, message, blobs).await;
    }

    pub async fn answer(&mut self, message: FromEngine) {
        self.send_numbered(0, message, vec![]).await;
    }

    /// The next message; `None` when the link is closed.
    pub async fn try_receive(&mut self) -> Option<(ToEngine, Vec<Bytes>)> {
        loop {
            let length = within("a message to the engine", self.stream.read_u32_le())
                .await
                .ok()?;
            let mut bytes = vec![0; length as usize];
            within("the rest of a message", self.stream.read_exact(&mut bytes))
                .await
                .ok()?;
            if let Incoming::Message(message) = self.assembler.take(bytes.into()).unwrap() {
                let head: ToEngine = message.decode().unwrap();
                if let ToEngine::Ack { received } = head {
                    self.acked = received;
                }
                return Some((head, message.blobs));
            }
        }
    }

    pub async fn receive(&mut self) -> (ToEngine, Vec<Bytes>) {
        self.try_receive().await.expect("the link lives")
    }

    /// The next message for which `pick` gives something.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&ToEngine, &[Bytes]) -> Option<T>) -> T {
        loop {
            let (message, blobs) = self.receive().await;
            if let ToEngine::Run { order, .. } = &message {
                self.seen = self.seen.max(order.0);
            }
            if let Some(found) = pick(&message, &blobs) {
                return found;
            }
        }
    }

    /// The next instruction.
    pub async fn run(&mut self) -> Order {
        self.wait_for(|message, _| match message {
            ToEngine::Run { order, .. } => Some(*order),
            _ => None,
        })
        .await
    }

    pub async fn finish(&mut self, order: Order) {
        let outcome = Outcome::Done(ValueHead::null());
        let timing = Timing {
            started: 1,
            completed: 2,
        };
        self.send(
            FromEngine::Finished {
                order,
                outcome,
                timing,
            },
            vec![],
        )
        .await;
    }

    /// Runs the next so many instructions; returns their orders.
    pub async fn run_and_finish(&mut self, count: usize) -> Vec<u64> {
        let mut orders = Vec::new();
        for _ in 0..count {
            let order = self.run().await;
            self.finish(order).await;
            orders.push(order.0);
        }
        orders
    }

    /// Leaves in good order when asked to.
    pub async fn leave(mut self) {
        self.wait_for(|message, _| matches!(message, ToEngine::Stop { .. }).then_some(()))
            .await;
        self.send(FromEngine::Leaving, vec![]).await;
        let last = self.last;
        self.wait_for(|message, _| {
            matches!(message, ToEngine::Ack { received } if *received == last).then_some(())
        })
        .await;
    }
}

/// Plays an engine of rank 0 whose socket belongs to another process: `child` sends what it reads, after a length of
/// two bytes, and writes each answer in the same way.
pub async fn greet_through(gateway: &Gateway, child: &mut tokio::process::Child) {
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut exchange = async |bytes: &[u8]| {
        to.write_u16(bytes.len() as u16).await.unwrap();
        to.write_all(bytes).await.unwrap();
        let length = within("the child's answer", from.read_u16()).await.unwrap();
        let mut answer = vec![0; length as usize];
        within("the rest of the answer", from.read_exact(&mut answer))
            .await
            .unwrap();
        answer
    };
    let side = ClientSide::new(Role::Engine, gateway.engine_secret.clone(), &[], random());
    let answer = exchange(&side.hello()).await;
    let (proof, _) = side.on_server_hello(&answer).unwrap();
    assert_eq!(exchange(&proof).await, [1]);
    let message = Message::bare(&FromEngineEnvelope {
        number: 0,
        message: facts(0, 1, 0),
    });
    let mut bytes = BytesMut::new();
    frame::frames(&message, 1).for_each(|frame| frame.append_prefixed(&mut bytes));
    exchange(&bytes).await;
    // Keeps the child's pipes open: only its death may close the link.
    std::mem::forget((to, from));
}

//! Who is there: fixed bytes before anything else, so that any two versions can at least refuse each other in words.
//!
//! ```text
//! ClientHello  "IPENGMPI" | role u8 | 0 u8 | oldest u16 | newest u16 | nonce [32]                        (46 bytes)
//! ServerHello  "IPENGMPI" | status u8 | 0 u8 | version u16 | oldest u16 | newest u16 | nonce [32] | proof [32]
//! ClientProof  proof [32]
//! Verdict      1 u8 (accepted) or 0 u8 (refused)
//! ```
//!
//! Integers are little-endian. Both sides show that they hold the secret by HMAC-SHA-256 over the whole transcript and
//! the *binding* of the channel (TLS exporter, RFC 9266; empty on a Unix socket, where the directory's mode is the
//! protection). A relay has two TLS channels with two bindings, so a relayed proof fails. The server proves first: a
//! client never gives a proof to somebody who does not hold the secret. Labels keep the two proofs apart, so that a
//! mirrored proof fails too. The secret itself never travels.
//!
//! Pure state machines: the caller moves the bytes and supplies the random nonces.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::{OLDEST_VERSION, VERSION};

/// Length of a ClientHello.
pub const CLIENT_HELLO_LEN: usize = 46;
/// Length of a ServerHello.
pub const SERVER_HELLO_LEN: usize = 80;
/// Length of a ClientProof.
pub const PROOF_LEN: usize = 32;
/// Length of a Verdict.
pub const VERDICT_LEN: usize = 1;
/// Label of the TLS exporter whose 32 bytes are the channel's binding (RFC 9266).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

const MAGIC: &[u8; 8] = b"IPENGMPI";
const STATUS_OK: u8 = 0;
const STATUS_VERSION: u8 = 1;

/// Which conversation follows, and so which secret proves the right to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// [`crate::Request`] and [`crate::Event`].
    Client = 1,
    /// [`crate::FromEngine`] and [`crate::ToEngine`].
    Engine = 2,
}

impl Role {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Client),
            2 => Some(Self::Engine),
            _ => None,
        }
    }
}

/// A shared secret of 256 random bits. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret as 64 hexadecimal digits, for an owner-only file or a private MPI message.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why two programs do not talk to each other.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum HandshakeError {
    /// The other side is something else, or is silent about itself.
    #[error("the other side does not speak the ipengine-mpi protocol")]
    NotOurs,
    /// No version in common.
    #[error(
        "protocol versions do not meet: here {ours_oldest} to {ours}, there {theirs_oldest} to {theirs}; {remedy}"
    )]
    Version {
        /// Oldest version of this side.
        ours_oldest: u16,
        /// Newest version of this side.
        ours: u16,
        /// Oldest version of the other side.
        theirs_oldest: u16,
        /// Newest version of the other side.
        theirs: u16,
        /// Which side to update.
        remedy: &'static str,
    },
    /// The server cannot prove that it holds the secret: a stale connection file, or somebody on a freed port.
    #[error(
        "the gateway does not hold the token of this connection file (a stale file, or another program took its address)"
    )]
    ServerProof,
    /// The client cannot.
    #[error("the token was refused")]
    ClientProof,
}

fn version_error(theirs_oldest: u16, theirs: u16) -> HandshakeError {
    let remedy = if theirs_oldest > VERSION {
        "update this side"
    } else {
        "update the other side"
    };
    HandshakeError::Version {
        ours_oldest: OLDEST_VERSION,
        ours: VERSION,
        theirs_oldest,
        theirs,
        remedy,
    }
}

/// The connecting side.
#[derive(Debug)]
pub struct ClientSide {
    hello: [u8; CLIENT_HELLO_LEN],
    secret: Secret,
    binding: Vec<u8>,
}

impl ClientSide {
    /// Begins. `binding` is the channel's binding, `nonce` 32 fresh random bytes.
    #[must_use]
    pub fn new(role: Role, secret: Secret, binding: &[u8], nonce: [u8; 32]) -> Self {
        Self {
            hello: client_hello(role, OLDEST_VERSION, VERSION, nonce),
            secret,
            binding: binding.to_vec(),
        }
    }

    /// The bytes to send first.
    #[must_use]
    pub fn hello(&self) -> [u8; CLIENT_HELLO_LEN] {
        self.hello
    }

    /// Checks the answer; returns the proof to send and the version agreed on.
    ///
    /// # Errors
    /// Any [`HandshakeError`] but `ClientProof`: hang up.
    pub fn on_server_hello(&self, answer: &[u8]) -> Result<([u8; PROOF_LEN], u16), HandshakeError> {
        let answer: &[u8; SERVER_HELLO_LEN] = answer.try_into().map_err(|_| HandshakeError::NotOurs)?;
        if &answer[..8] != MAGIC {
            return Err(HandshakeError::NotOurs);
        }
        let (version, oldest, newest) = (u16_at(answer, 10), u16_at(answer, 12), u16_at(answer, 14));
        if answer[8] != STATUS_OK || !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(version_error(oldest, newest));
        }
        let signed = &answer[..SERVER_HELLO_LEN - PROOF_LEN];
        let expected = proof(
            &self.secret,
            b"ipengine-mpi server",
            &[&self.hello, signed, &self.binding],
        );
        if !bool::from(expected.ct_eq(&answer[SERVER_HELLO_LEN - PROOF_LEN..])) {
            return Err(HandshakeError::ServerProof);
        }
        Ok((
            proof(
                &self.secret,
                b"ipengine-mpi client",
                &[&self.hello, answer, &self.binding],
            ),
            version,
        ))
    }

    /// Reads the verdict.
    ///
    /// # Errors
    /// [`HandshakeError::ClientProof`] if it is a refusal.
    pub fn on_verdict(&self, verdict: &[u8]) -> Result<(), HandshakeError> {
        if verdict == [1] {
            Ok(())
        } else {
            Err(HandshakeError::ClientProof)
        }
    }
}

/// The accepting side, after a ClientHello of an acceptable version.
#[derive(Debug)]
pub struct ServerSide {
    role: Role,
    version: u16,
    answer: [u8; SERVER_HELLO_LEN],
    expected: [u8; PROOF_LEN],
}

/// A ClientHello that is turned down: why, and the bytes to send before hanging up (none to strangers).
#[derive(Debug)]
pub struct Refusal {
    /// For the log.
    pub error: HandshakeError,
    /// What the other side may read.
    pub answer: Option<[u8; SERVER_HELLO_LEN]>,
}

impl ServerSide {
    /// Reads a ClientHello; `secret_of` gives the secret of the role asked for, `None` if it is not served here.
    ///
    /// # Errors
    /// A [`Refusal`], with the bytes to send before hanging up.
    pub fn on_client_hello(
        hello: &[u8],
        secret_of: impl FnOnce(Role) -> Option<Secret>,
        binding: &[u8],
        nonce: [u8; 32],
    ) -> Result<Self, Refusal> {
        let stranger = || Refusal {
            error: HandshakeError::NotOurs,
            answer: None,
        };
        let hello: &[u8; CLIENT_HELLO_LEN] = hello.try_into().map_err(|_| stranger())?;
        if &hello[..8] != MAGIC {
            return Err(stranger());
        }
        let (oldest, newest) = (u16_at(hello, 10), u16_at(hello, 12));
        if oldest > VERSION || newest < OLDEST_VERSION {
            let answer = Some(server_hello(STATUS_VERSION, 0, [0; 32]));
            return Err(Refusal {
                error: version_error(oldest, newest),
                answer,
            });
        }
        let role = Role::from_byte(hello[8]).ok_or_else(stranger)?;
        let secret = secret_of(role).ok_or_else(stranger)?;
        let version = newest.min(VERSION);
        let mut answer = server_hello(STATUS_OK, version, nonce);
        let (signed, own_proof) = answer.split_at_mut(SERVER_HELLO_LEN - PROOF_LEN);
        own_proof.copy_from_slice(&proof(&secret, b"ipengine-mpi server", &[hello, signed, binding]));
        let expected = proof(&secret, b"ipengine-mpi client", &[hello, &answer, binding]);
        Ok(Self {
            role,
            version,
            answer,
            expected,
        })
    }

    /// The bytes to send.
    #[must_use]
    pub fn answer(&self) -> [u8; SERVER_HELLO_LEN] {
        self.answer
    }

    /// Checks the client's proof; returns its role and the version agreed on. Send verdict 1 on success, 0 otherwise.
    ///
    /// # Errors
    /// [`HandshakeError::ClientProof`] if it is not the right one.
    pub fn on_proof(&self, proof: &[u8]) -> Result<(Role, u16), HandshakeError> {
        if bool::from(self.expected.ct_eq(proof)) {
            Ok((self.role, self.version))
        } else {
            Err(HandshakeError::ClientProof)
        }
    }
}

/// The bytes of a ClientHello. Public for tests that speak as another version.
#[must_use]
pub fn client_hello(role: Role, oldest: u16, newest: u16, nonce: [u8; 32]) -> [u8; CLIENT_HELLO_LEN] {
    let mut hello = [0; CLIENT_HELLO_LEN];
    hello[..8].copy_from_slice(MAGIC);
    hello[8] = role as u8;
    hello[10..12].copy_from_slice(&oldest.to_le_bytes());
    hello[12..14].copy_from_slice(&newest.to_le_bytes());
    hello[14..].copy_from_slice(&nonce);
    hello
}

fn server_hello(status: u8, version: u16, nonce: [u8; 32]) -> [u8; SERVER_HELLO_LEN] {
    let mut hello = [0; SERVER_HELLO_LEN];
    hello[..8].copy_from_slice(MAGIC);
    hello[8] = status;
    hello[10..12].copy_from_slice(&version.to_le_bytes());
    hello[12..14].copy_from_slice(&OLDEST_VERSION.to_le_bytes());
    hello[14..16].copy_from_slice(&VERSION.to_le_bytes());
    hello[16..48].copy_from_slice(&nonce);
    hello
}

fn proof(secret: &Secret, label: &[u8], parts: &[&[u8]]) -> [u8; PROOF_LEN] {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of any length");
    mac.update(label);
    for part in parts {
        // Lengths keep neighbouring parts apart.
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

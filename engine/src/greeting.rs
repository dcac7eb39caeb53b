//! The greeting: every rank shows that it is this program, rank 0 answers with everything a rank has to know.
//!
//! Point-to-point and not a broadcast, because a rank that is no engine would hang a broadcast without a name.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::link::GatewayAddress;
use crate::place::host_name;
use crate::world::World;

/// First words of every rank.
#[derive(Serialize, Deserialize)]
struct Hello {
    program: String,
    version: String,
    host: String,
}

/// What rank 0 tells everyone: environment variables do not reach other hosts.
#[derive(Clone, Serialize, Deserialize)]
pub struct Briefing {
    /// The way to the gateway, with the engines' secret.
    pub gateway: GatewayAddress,
    /// The interpreter.
    pub python: PathBuf,
    /// Name of the cluster.
    pub cluster: String,
    /// For logs.
    pub run_dir: PathBuf,
    /// Rank 0's `PYTHONPATH`.
    pub python_path: Option<String>,
}

/// The answer to a hello.
#[derive(Serialize, Deserialize)]
enum Answer {
    Welcome(Box<Briefing>),
    Refused(String),
}

impl Hello {
    fn ours() -> Self {
        let own = |text: &str| text.to_owned();
        Self {
            program: own("ipengine-mpi"),
            version: own(env!("CARGO_PKG_VERSION")),
            host: host_name(),
        }
    }
}

/// Rank 0: hears every rank, then tells all of them the same. Collective over the world, with a limit.
///
/// # Errors
/// [`Error::NotAnEngine`] naming the ranks that are something else; the others are told.
pub fn lead(
    world: &World,
    patience: Duration,
    briefing: impl FnOnce() -> Result<Briefing, Error>,
) -> Result<Briefing, Error> {
    let others: Vec<u32> = (1..world.size()).collect();
    let heard = world.hear(&others, Instant::now() + patience)?;
    let strangers: Vec<String> = others
        .iter()
        .zip(&heard)
        .filter_map(|(rank, hello)| complaint(*rank, hello.as_deref()))
        .collect();
    let decided = if strangers.is_empty() {
        briefing()
    } else {
        Err(Error::NotAnEngine {
            detail: strangers.join("; "),
        })
    };
    let answer = match &decided {
        Ok(briefing) => Answer::Welcome(Box::new(briefing.clone())),
        Err(error) => Answer::Refused(crate::error::chain(error)),
    };
    let text = serde_json::to_vec(&answer).expect("plain data");
    for (rank, _) in others.iter().zip(&heard).filter(|(_, hello)| hello.is_some()) {
        world.greet(*rank, &text)?;
    }
    decided
}

fn complaint(rank: u32, hello: Option<&[u8]>) -> Option<String> {
    let Some(bytes) = hello else {
        return Some(format!("rank {rank} is no engine (it did not greet)"));
    };
    match serde_json::from_slice::<Hello>(bytes) {
        Ok(hello) if hello.version == env!("CARGO_PKG_VERSION") => None,
        Ok(hello) => Some(format!(
            "rank {rank} on {} is ipengine-mpi {}",
            hello.host, hello.version
        )),
        Err(_) => Some(format!("rank {rank} sent an unknown greeting")),
    }
}

/// Every other rank: greets rank 0 and waits for its answer.
///
/// # Errors
/// [`Error::NotAnEngine`] with rank 0's words, or because it did not answer.
pub fn follow(world: &World, patience: Duration) -> Result<Briefing, Error> {
    let hello = serde_json::to_vec(&Hello::ours()).expect("plain data");
    world.greet(0, &hello)?;
    // Rank 0 may itself wait its full patience for another rank.
    let answer = world.hear(&[0], Instant::now() + 2 * patience)?.remove(0);
    let Some(answer) = answer else {
        return Err(Error::NotAnEngine {
            detail: "rank 0 did not answer the greeting".to_owned(),
        });
    };
    match serde_json::from_slice(&answer).map_err(Error::Greeting)? {
        Answer::Welcome(briefing) => Ok(*briefing),
        Answer::Refused(detail) => Err(Error::Refused { detail }),
    }
}

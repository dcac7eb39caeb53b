//! The life of the world: complete, stopping, dying, ended.

use std::time::Instant;

use ipengine_protocol::{EngineId, LossCause};

use super::launcher::Launcher;

/// How far the world is, for those who write the connection file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Some engine has not connected.
    Starting,
    /// All have connected.
    Running,
    /// It has ended.
    Ended(End),
}

/// How the world ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// In a sentence.
    pub reason: String,
    /// Whether it was stopped and every engine left in good order.
    pub orderly: bool,
    /// When.
    pub at: Instant,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) first_seen: bool,
    pub(super) complete: bool,
    pub(super) stop: Option<Stop>,
    pub(super) death: Death,
    pub(super) end: Option<End>,
    pub(super) launcher: Launcher,
    /// Something did not go as asked.
    pub(super) disorder: bool,
    /// When all engines must have connected.
    pub(super) start_by: Option<Instant>,
    /// For when the last look at leaving was set.
    pub(super) linger_until: Option<Instant>,
}

/// The stop that somebody asked for.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) reason: String,
    pub(super) origin: StopOrigin,
}

/// Where a stop comes from: what the end is ascribed to when an engine died, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOrigin {
    /// Somebody wanted it.
    Asked,
    /// A signal to an engine, which may be the launcher's answer to a death that we have not seen yet.
    Signal,
    /// A death that was known.
    Death,
}

/// The first death, which is the cause of all others.
#[derive(Debug, Default)]
pub(super) struct Death {
    pub(super) cause: Option<LossCause>,
    /// Engines that are gone without a word, while the launcher may still say why.
    pub(super) unexplained: Vec<EngineId>,
}

impl World {
    pub(super) fn new(launcher: bool) -> Self {
        let launcher = Launcher::new(launcher);
        let death = Death::default();
        Self {
            first_seen: false,
            complete: false,
            stop: None,
            death,
            end: None,
            launcher,
            disorder: false,
            start_by: None,
            linger_until: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.end {
            Some(end) => Phase::Ended(end.clone()),
            None if self.complete => Phase::Running,
            None => Phase::Starting,
        }
    }
}

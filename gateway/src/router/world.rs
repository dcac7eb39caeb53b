//! The life of the world: complete, stopping, dying, ended.

use std::collections::VecDeque;
use std::time::Instant;

use ipengine_protocol::{EngineId, LossCause};

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

/// Lines of the launcher that are kept.
const LAUNCHER_LINES: usize = 12;

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

#[derive(Debug)]
pub(super) struct Launcher {
    /// Whether anybody listens to it.
    pub(super) heard: bool,
    pub(super) exited: Option<String>,
    lines: VecDeque<String>,
    /// Whether it has said something since the first unexplained loss.
    pub(super) spoke: bool,
}

impl World {
    pub(super) fn new(launcher: bool) -> Self {
        let launcher = Launcher {
            heard: launcher,
            exited: None,
            lines: VecDeque::new(),
            spoke: false,
        };
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

impl Launcher {
    pub(super) fn hear(&mut self, line: &str) {
        if line.trim().is_empty() || line.trim().chars().all(|char| "-=*".contains(char)) {
            return;
        }
        if self.lines.len() == LAUNCHER_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.trim().to_owned());
        self.spoke = true;
    }

    /// Its last words and its end, in one line; empty if there were none.
    pub(super) fn words(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        match (&self.exited, lines.is_empty()) {
            (None, true) => String::new(),
            (None, false) => format!("the launcher says: {}", lines.join(" ")),
            (Some(end), true) => format!("the launcher {end}"),
            (Some(end), false) => format!("the launcher {end}; it says: {}", lines.join(" ")),
        }
    }
}

//! Instruction to waiter: what is known of each instruction. Every target's outcome is set exactly once.
//!
//! The I/O thread writes, waiting threads read, both under the session's lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ipengine_protocol::{EngineId, Outcome, OutputName, Timing};

use crate::Error;
use crate::text::Utf8Pieces;

/// Blobs up to this size are copied out of the connection's read buffer, which they would keep alive.
const SMALL_BLOB: usize = 16 << 10;

/// Pieces of output are merged up to this length.
const LONGEST_PIECE: usize = 64 << 10;

/// What one engine answered.
#[derive(Debug)]
pub struct Arrived {
    /// Who.
    pub engine: EngineId,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ran, by the engine's clock.
    pub timing: Timing,
    /// The value's binary parts.
    pub blobs: Vec<Bytes>,
    /// Unix time of arrival here, in seconds.
    pub received: f64,
}

/// What an output is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutputKind {
    /// Text on a stream.
    Stream(OutputName),
    /// A Jupyter message of this type; the text is the JSON of its content.
    Display(String),
}

impl OutputKind {
    /// `stdout`, `stderr`, `display_data`, …
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stream(name) => name.as_str(),
            Self::Display(msg_type) => msg_type,
        }
    }
}

/// One piece of output.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Whose.
    pub engine: EngineId,
    /// What.
    pub kind: OutputKind,
    /// The text.
    pub text: String,
    /// Unix time of arrival here, in seconds.
    pub time: f64,
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Entry {
    /// In the order given by the user.
    pub targets: Vec<EngineId>,
    /// The gateway picks one of `targets`: there is one outcome.
    pub one_of: bool,
    /// The one that the gateway picked, once it has begun.
    pub picked: Option<EngineId>,
    /// One per target, or one.
    pub outcomes: Vec<Option<Arc<Arrived>>>,
    /// Outcomes that are missing.
    pub left: usize,
    /// In the order of arrival.
    pub outputs: Vec<Output>,
    /// Outputs handed out; pieces from here on may still grow.
    pub read: usize,
    /// Outputs, outcomes and the finish.
    pub changes: usize,
    /// Whether some outcome is not `Done`.
    pub failed: bool,
    /// Unix time of the submit, in seconds.
    pub submitted: f64,
    /// Somebody waits for its finish.
    pub watched: bool,
    /// Somebody waits for its first failure.
    pub guarded: bool,
    streams: HashMap<(EngineId, OutputName), Utf8Pieces>,
}

impl Entry {
    /// Whether all outcomes are known.
    pub(crate) fn finished(&self) -> bool {
        self.left == 0
    }

    /// Engines that have not ended it.
    pub(crate) fn running(&self) -> Vec<EngineId> {
        match (self.finished(), self.one_of, self.picked) {
            (true, _, _) => Vec::new(),
            (false, true, Some(engine)) => vec![engine],
            (false, true, None) => self.targets.clone(),
            (false, false, _) => {
                let missing = self
                    .targets
                    .iter()
                    .zip(&self.outcomes)
                    .filter(|(_, outcome)| outcome.is_none());
                missing.map(|(engine, _)| *engine).collect()
            }
        }
    }

    fn place(&self, engine: EngineId) -> Option<usize> {
        if self.one_of {
            Some(0)
        } else {
            self.targets.iter().position(|target| *target == engine)
        }
    }

    fn push_text(&mut self, engine: EngineId, name: OutputName, text: String) {
        if text.is_empty() {
            return;
        }
        let kind = OutputKind::Stream(name);
        let unread = self.outputs.len() > self.read;
        if let Some(last) = self.outputs.last_mut().filter(|_| unread)
            && last.engine == engine
            && last.kind == kind
            && last.text.len() + text.len() <= LONGEST_PIECE
        {
            last.text.push_str(&text);
            return;
        }
        self.push_output(Output {
            engine,
            kind,
            text,
            time: now(),
        });
    }

    fn push_output(&mut self, output: Output) {
        self.outputs.push(output);
        self.changes += 1;
    }

    /// Characters of which the rest never came are shown as what they are: broken.
    fn flush_streams(&mut self, engine: EngineId) {
        for name in [OutputName::Stdout, OutputName::Stderr] {
            if let Some(mut pieces) = self.streams.remove(&(engine, name)) {
                self.push_text(engine, name, pieces.finish());
            }
        }
    }
}

/// All instructions of the session that are not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: HashMap<u64, Entry>,
    /// Entries that have not finished.
    open: usize,
    /// Counter of the latest instruction; counters only grow.
    latest: u64,
    /// Finished since somebody last asked.
    fresh: VecDeque<u64>,
}

/// Who must be woken after an event.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Changed {
    /// Something is known that was not.
    pub any: bool,
    /// An instruction that somebody waits for has finished, or failed where that is waited for.
    pub watched: bool,
}

impl Pending {
    /// Registers an instruction before it is sent.
    pub(crate) fn register(&mut self, counter: u64, targets: Vec<EngineId>, one_of: bool) {
        let left = if one_of { 1 } else { targets.len() };
        let entry = Entry {
            targets,
            one_of,
            picked: None,
            outcomes: vec![None; left],
            left,
            outputs: Vec::new(),
            read: 0,
            changes: 0,
            failed: false,
            submitted: now(),
            watched: false,
            guarded: false,
            streams: HashMap::new(),
        };
        self.entries.insert(counter, entry);
        self.latest = self.latest.max(counter);
        self.open += 1;
    }

    /// How many have not finished.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// The entry.
    pub(crate) fn get(&self, counter: u64) -> Result<&Entry, Error> {
        self.entries
            .get(&counter)
            .ok_or(Error::UnknownInstruction(counter))
    }

    /// The entry; `None` when it was forgotten, which only a finished one can be.
    pub(crate) fn unless_forgotten(&self, counter: u64) -> Result<Option<&Entry>, Error> {
        let entry = self.entries.get(&counter);
        if entry.is_none() && !(1..=self.latest).contains(&counter) {
            return Err(Error::UnknownInstruction(counter));
        }
        Ok(entry)
    }

    /// Whether all outcomes of the instruction are or were known.
    pub(crate) fn finished(&self, counter: u64) -> Result<bool, Error> {
        Ok(self.unless_forgotten(counter)?.is_none_or(Entry::finished))
    }

    /// Its number of changes, and one more than `seen` when it was forgotten meanwhile.
    pub(crate) fn changes(&self, counter: u64, seen: usize) -> Result<usize, Error> {
        let entry = self.unless_forgotten(counter)?;
        Ok(entry.map_or(seen.saturating_add(1), |entry| entry.changes))
    }

    /// The entry, to change.
    pub(crate) fn get_mut(&mut self, counter: u64) -> Result<&mut Entry, Error> {
        self.entries
            .get_mut(&counter)
            .ok_or(Error::UnknownInstruction(counter))
    }

    /// An engine began it.
    pub(crate) fn on_started(&mut self, counter: u64, engine: EngineId) -> Changed {
        if let Some(entry) = self.entries.get_mut(&counter).filter(|entry| entry.one_of) {
            entry.picked = Some(engine);
        }
        Changed::default()
    }

    /// Bytes on a stream. `omitted` bytes were left out before them.
    pub(crate) fn on_stream(
        &mut self,
        counter: u64,
        engine: EngineId,
        name: OutputName,
        omitted: u64,
        bytes: &[u8],
    ) -> Changed {
        let Some(entry) = self.entries.get_mut(&counter) else {
            return Changed::default();
        };
        if omitted > 0 {
            let mark = format!("\n[{omitted} bytes of {} left out]\n", name.as_str());
            entry.push_text(engine, name, mark);
        }
        let text = entry.streams.entry((engine, name)).or_default().take(bytes);
        entry.push_text(engine, name, text);
        Changed {
            any: true,
            watched: false,
        }
    }

    /// A display message.
    pub(crate) fn on_display(
        &mut self,
        counter: u64,
        engine: EngineId,
        msg_type: String,
        json: &[u8],
    ) -> Changed {
        let Some(entry) = self.entries.get_mut(&counter) else {
            return Changed::default();
        };
        let text = String::from_utf8_lossy(json).into_owned();
        entry.push_output(Output {
            engine,
            kind: OutputKind::Display(msg_type),
            text,
            time: now(),
        });
        Changed {
            any: true,
            watched: false,
        }
    }

    /// An outcome. A second one for the same target is dropped.
    pub(crate) fn on_outcome(
        &mut self,
        counter: u64,
        engine: EngineId,
        outcome: Outcome,
        timing: Timing,
        blobs: &[Bytes],
    ) -> Changed {
        let Some(entry) = self.entries.get_mut(&counter) else {
            return Changed::default();
        };
        let Some(place) = entry.place(engine) else {
            return Changed::default();
        };
        if entry.outcomes[place].is_some() {
            return Changed::default();
        }
        entry.flush_streams(engine);
        let alarm = entry.guarded && !entry.failed && !outcome.is_done();
        entry.failed |= !outcome.is_done();
        let blobs = blobs.iter().map(own).collect();
        entry.outcomes[place] = Some(Arc::new(Arrived {
            engine,
            outcome,
            timing,
            blobs,
            received: now(),
        }));
        entry.left -= 1;
        entry.changes += 1;
        if !entry.finished() {
            return Changed {
                any: true,
                watched: alarm,
            };
        }
        entry.changes += 1;
        self.open -= 1;
        self.fresh.push_back(counter);
        Changed {
            any: true,
            watched: entry.watched || alarm,
        }
    }

    /// Ends an instruction on all targets that have not ended it, each with the outcome that `of` gives it.
    pub(crate) fn end(&mut self, counter: u64, mut of: impl FnMut(EngineId) -> Outcome) -> Changed {
        let open = self.entries.get(&counter).map(Entry::running).unwrap_or_default();
        let mut changed = Changed::default();
        for engine in open {
            let one = self.on_outcome(counter, engine, of(engine), Timing::default(), &[]);
            changed = Changed {
                any: true,
                watched: changed.watched | one.watched,
            };
        }
        changed
    }

    /// Counters of all instructions that have not finished, oldest first.
    pub(crate) fn unfinished(&self) -> Vec<u64> {
        let open = self.entries.iter().filter(|(_, entry)| !entry.finished());
        let mut counters: Vec<u64> = open.map(|(counter, _)| *counter).collect();
        counters.sort_unstable();
        counters
    }

    /// Takes the counters that finished since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<u64> {
        self.fresh.drain(..).collect()
    }

    /// Drops finished instructions; none if one of them has not finished.
    pub(crate) fn forget(&mut self, counters: &[u64]) -> Result<(), Error> {
        if let Some(open) = counters
            .iter()
            .find(|counter| self.entries.get(counter).is_some_and(|e| e.left > 0))
        {
            return Err(Error::Unfinished(*open));
        }
        counters
            .iter()
            .for_each(|counter| drop(self.entries.remove(counter)));
        // Nobody may ever ask what finished: the list stays in proportion to what is kept anyway.
        if self.fresh.len() > 1024 + 2 * self.entries.len() {
            self.fresh.retain(|counter| self.entries.contains_key(counter));
        }
        Ok(())
    }
}

fn own(blob: &Bytes) -> Bytes {
    if blob.len() <= SMALL_BLOB {
        Bytes::copy_from_slice(blob)
    } else {
        blob.clone()
    }
}

/// Unix time in seconds.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

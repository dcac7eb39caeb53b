//! The handle that programs use: submit, wait, read, interrupt, status, shutdown.
//!
//! Thread-safe. No call does I/O itself: it changes the shared state and wakes the I/O thread, or sleeps until that
//! thread has brought something.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::{Answer, ClientId, EngineId, InterruptTarget, Request, Status, Submit, Targets};

use crate::Error;
use crate::connection::{CLOSE_LIMIT, GOODBYE};
pub use crate::opening::Connecting;
use crate::opening::serve;
pub use crate::options::{Info, Instruction, Logs, Options};
use crate::pending::{Arrived, Output};
pub use crate::question::Question;
use crate::shared::{Life, Shared, State, deadline};

/// A session with a gateway. Dropping it closes the session.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    file: PathBuf,
    id: ClientId,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let mut connecting = Self::start(options)?;
        loop {
            if let Some(result) = connecting.wait(Duration::from_secs(3600)) {
                return result;
            }
        }
    }

    /// Begins to connect, on the thread that will do all I/O.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start(options: Options) -> Result<Connecting, Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Error::Thread(std::io::Error::other(error.to_string())))?;
        let id = ClientId(id);
        let shared = Arc::new(Shared::new(id));
        let (report, opened) = mpsc::channel();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("ipsteer-io".to_owned())
            .spawn(move || serve(options, &theirs, &report))
            .map_err(Error::Thread)?;
        let client = Self {
            shared,
            thread: Mutex::new(Some(thread)),
            file: PathBuf::new(),
            id,
        };
        Ok(Connecting {
            client: Some(client),
            opened,
        })
    }

    /// Remembers which connection file led to the cluster.
    pub(crate) fn set_file(&mut self, file: PathBuf) {
        self.file = file;
    }

    /// This session's identity.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// What is known of the cluster.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn info(&self) -> Result<Info, Error> {
        self.shared.check_owner()?;
        let state = self.shared.lock();
        let facts = state.facts.clone();
        let lost = if let Life::Lost(reason) = &state.life {
            Some(reason.clone())
        } else {
            None
        };
        Ok(Info {
            cluster: facts.cluster,
            file: self.file.clone(),
            address: facts.address,
            software: facts.software,
            engines: facts.engines,
            ended: facts.ended.or(lost),
        })
    }

    /// Number of engines.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn size(&self) -> Result<u32, Error> {
        self.shared.check_owner()?;
        Ok(size(&self.shared.lock()))
    }

    /// Queues an instruction and returns its counter at once.
    ///
    /// # Errors
    /// Errors of the target set and of the parts, [`Error::Closed`], [`Error::Forked`], [`Error::Lost`].
    pub fn submit(&self, instruction: Instruction) -> Result<u64, Error> {
        self.shared.check_owner()?;
        let Instruction {
            targets,
            work,
            blobs,
            each,
            label,
        } = instruction;
        let one_of = matches!(targets, Targets::OneOf(_));
        check_parts(&targets, each.as_deref(), blobs.len())?;
        let submit = Submit {
            counter: 0,
            targets,
            work,
            each,
            label,
        };
        let counter = {
            let mut state = self.shared.lock();
            state.check_open()?;
            check_targets(submit.targets.engines(), size(&state))?;
            state.submit(submit, one_of, blobs)
        };
        self.shared.wake.notify_one();
        Ok(counter)
    }

    /// Waits until all are finished on all targets (those forgotten are), or, with `first_error`, one outcome is
    /// not `Done`. `false` when the time is over.
    ///
    /// # Errors
    /// [`Error::UnknownInstruction`], [`Error::Closed`], [`Error::Forked`].
    pub fn wait(
        &self,
        counters: &[u64],
        timeout: Option<Duration>,
        first_error: bool,
    ) -> Result<bool, Error> {
        let mut done = 0;
        let arrived = self.shared.wait(deadline(timeout), false, |state| {
            while done < counters.len() && state.pending.finished(counters[done])? {
                done += 1;
            }
            let rest = &counters[done..];
            if rest.is_empty() || (first_error && any_failed(state, counters)?) {
                return Ok(Some(()));
            }
            if first_error {
                for counter in rest {
                    if !state.pending.finished(*counter)? {
                        state.pending.get_mut(*counter)?.guarded = true;
                    }
                }
            }
            // To be woken by the last one alone is enough: the others are looked at then.
            for counter in rest.iter().rev() {
                if !state.pending.finished(*counter)? {
                    state.pending.get_mut(*counter)?.watched = true;
                    break;
                }
            }
            Ok(None)
        })?;
        Ok(arrived.is_some())
    }

    /// Waits until more than `seen` outputs, outcomes and the finish are known; returns how many are.
    ///
    /// # Errors
    /// As [`Client::wait`].
    pub fn wait_change(&self, counter: u64, seen: usize, timeout: Option<Duration>) -> Result<usize, Error> {
        let changes = self.shared.wait(deadline(timeout), true, |state| {
            let changes = state.pending.changes(counter, seen)?;
            Ok((changes > seen).then_some(changes))
        })?;
        match changes {
            Some(changes) => Ok(changes),
            None => self.shared.lock().pending.changes(counter, seen),
        }
    }

    /// Whether it is finished on all targets.
    ///
    /// # Errors
    /// [`Error::UnknownInstruction`], [`Error::Forked`].
    pub fn finished(&self, counter: u64) -> Result<bool, Error> {
        self.shared.check_owner()?;
        self.shared.lock().pending.finished(counter)
    }

    /// One entry per target, in target order (one for [`Targets::OneOf`]); `None` while pending.
    ///
    /// # Errors
    /// [`Error::UnknownInstruction`], [`Error::Forked`].
    pub fn outcomes(&self, counter: u64) -> Result<Vec<Option<Arc<Arrived>>>, Error> {
        self.shared.check_owner()?;
        Ok(self.shared.lock().pending.get(counter)?.outcomes.clone())
    }

    /// Engines that have not ended it.
    ///
    /// # Errors
    /// [`Error::UnknownInstruction`], [`Error::Forked`].
    pub fn running(&self, counter: u64) -> Result<Vec<EngineId>, Error> {
        self.shared.check_owner()?;
        Ok(self.shared.lock().pending.get(counter)?.running())
    }

    /// Its output from index `start` on, in the order of arrival.
    ///
    /// # Errors
    /// [`Error::UnknownInstruction`], [`Error::Forked`].
    pub fn outputs(&self, counter: u64, start: usize) -> Result<Vec<Output>, Error> {
        self.shared.check_owner()?;
        let mut state = self.shared.lock();
        let entry = state.pending.get_mut(counter)?;
        entry.read = entry.outputs.len();
        Ok(entry.outputs.get(start..).unwrap_or_default().to_vec())
    }

    /// Output of no instruction of this session, each piece once.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn strays(&self) -> Result<Vec<Output>, Error> {
        self.shared.check_owner()?;
        Ok(self.shared.lock().strays.drain(..).collect())
    }

    /// Unix time of its submit.
    ///
    /// # Errors
    /// [`Error::UnknownInstruction`], [`Error::Forked`].
    pub fn submitted(&self, counter: u64) -> Result<f64, Error> {
        self.shared.check_owner()?;
        Ok(self.shared.lock().pending.get(counter)?.submitted)
    }

    /// Counters finished since the last call; empty when the time is over.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn next_finished(&self, timeout: Option<Duration>) -> Result<Vec<u64>, Error> {
        let fresh = self.shared.wait(deadline(timeout), true, |state| {
            let fresh = state.pending.take_fresh();
            Ok((!fresh.is_empty()).then_some(fresh))
        })?;
        Ok(fresh.unwrap_or_default())
    }

    /// Drops what is held for finished instructions.
    ///
    /// # Errors
    /// [`Error::Unfinished`], [`Error::Forked`].
    pub fn forget(&self, counters: &[u64]) -> Result<(), Error> {
        self.shared.check_owner()?;
        self.shared.lock().pending.forget(counters)
    }

    /// Begins to interrupt; the request is sent at once, ahead of work that waits.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Lost`], errors of the target set.
    pub fn interrupt(&self, target: InterruptTarget) -> Result<Question<Vec<InterruptReport>>, Error> {
        if let InterruptTarget::Engines(engines) = &target {
            check_targets(engines, self.size()?)?;
        }
        self.ask(
            |request| Request::Interrupt { request, target },
            |answer, _| match answer {
                Answer::Interrupt(reports) => Some(reports),
                _ => None,
            },
        )
    }

    /// Asks what everybody is doing.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Lost`].
    pub fn status(&self) -> Result<Question<Status>, Error> {
        self.ask(
            |request| Request::Status { request },
            |answer, _| match answer {
                Answer::Status(status) => Some(*status),
                _ => None,
            },
        )
    }

    /// Asks for the ends of an engine's output files.
    ///
    /// # Errors
    /// [`Error::UnknownEngine`], [`Error::Closed`], [`Error::Forked`], [`Error::Lost`].
    pub fn logs(&self, engine: EngineId, tail: u64) -> Result<Question<Logs>, Error> {
        check_targets(&[engine], self.size()?)?;
        self.ask(
            |request| Request::Logs {
                request,
                engine,
                tail,
            },
            |answer, blobs| match answer {
                Answer::Logs { stdout, stderr } => {
                    let mut blobs = blobs.into_iter();
                    Some(Logs {
                        stdout_path: stdout,
                        stderr_path: stderr,
                        stdout: blobs.next().unwrap_or_default(),
                        stderr: blobs.next().unwrap_or_default(),
                    })
                }
                _ => None,
            },
        )
    }

    /// Asks the gateway to stop the world. See [`Client::wait_end`].
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Lost`].
    pub fn shutdown(&self, reason: &str) -> Result<(), Error> {
        self.shared.check_owner()?;
        {
            let mut state = self.shared.lock();
            state.check_open()?;
            state.shut_down(reason);
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Waits until the world has ended; the reason, or `None` when the time is over.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn wait_end(&self, timeout: Option<Duration>) -> Result<Option<String>, Error> {
        self.shared.wait(deadline(timeout), true, |state| {
            Ok(match &state.life {
                Life::Lost(reason) => Some(state.facts.ended.clone().unwrap_or_else(|| reason.clone())),
                _ => state.facts.ended.clone(),
            })
        })
    }

    /// Ends the session: sends what is queued, within a limit, and ends the I/O thread. Instructions go on running.
    ///
    /// # Errors
    /// [`Error::Forked`]; closing twice is none.
    pub fn close(&self) -> Result<(), Error> {
        self.shared.check_owner()?;
        {
            let mut state = self.shared.lock();
            if state.life == Life::Open {
                state.life = Life::Closed;
            }
        }
        self.shared.announce_all();
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && self.shared.wait_gone(CLOSE_LIMIT + 2 * GOODBYE)
        {
            // A panic of that thread was reported when it happened.
            let _ = thread.join();
        }
        Ok(())
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(u64) -> Request,
        read: fn(Answer, Vec<Bytes>) -> Option<T>,
    ) -> Result<Question<T>, Error> {
        self.shared.check_owner()?;
        let number = {
            let mut state = self.shared.lock();
            state.check_open()?;
            state.ask(request)
        };
        self.shared.wake.notify_one();
        Ok(Question {
            shared: self.shared.clone(),
            number,
            read,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // In a fork there is nothing to close: thread and connection are the parent's.
        let _ = self.close();
    }
}

fn size(state: &State) -> u32 {
    u32::try_from(state.facts.engines.len()).unwrap_or(u32::MAX)
}

fn any_failed(state: &State, counters: &[u64]) -> Result<bool, Error> {
    for counter in counters {
        let entry = state.pending.unless_forgotten(*counter)?;
        if entry.is_some_and(|entry| entry.failed) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_targets(engines: &[EngineId], size: u32) -> Result<(), Error> {
    if engines.is_empty() {
        return Err(Error::NoTargets);
    }
    let mut named = vec![false; size as usize];
    for engine in engines {
        match named.get_mut(engine.index()) {
            None => {
                return Err(Error::UnknownEngine {
                    engine: i64::from(engine.0),
                    size,
                });
            }
            Some(true) => return Err(Error::RepeatedEngine(*engine)),
            Some(named) => *named = true,
        }
    }
    Ok(())
}

fn check_parts(targets: &Targets, each: Option<&[u32]>, blobs: usize) -> Result<(), Error> {
    let Some(each) = each else { return Ok(()) };
    let announced = each.iter().map(|count| u64::from(*count)).sum();
    let targets_count = targets.engines().len();
    if matches!(targets, Targets::All(_)) && each.len() == targets_count && announced == blobs as u64 {
        Ok(())
    } else {
        Err(Error::Parts {
            blobs,
            announced,
            targets: targets_count,
        })
    }
}

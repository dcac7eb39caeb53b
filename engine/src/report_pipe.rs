//! What the launcher says, on its way to the gateway that runs now. A thread of its own writes, so that a gateway that hangs
//! holds up nobody who has to answer signals; a gateway that was started again is told what the one before it knew.

use std::collections::VecDeque;
use std::io::Write;
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ipengine_gateway::LauncherReport;

use crate::error::Error;

/// Lines of the launcher that another gateway is told: its explanation of an end is the last thing that it says.
const REMEMBERED: usize = 200;

/// What the writing thread is told.
enum Word {
    Report(LauncherReport),
    /// There is another gateway, and this leads to it.
    Gateway(ChildStdin),
}

/// The sending side.
#[derive(Clone)]
pub struct ReportPipe(Sender<Word>);

impl ReportPipe {
    /// Starts the thread that writes to `gateway`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(gateway: ChildStdin) -> Result<Self, Error> {
        // Unbounded, since nobody may wait for a gateway that hangs: holds what a launcher prints until that one is gone.
        let (words, heard) = channel();
        thread::Builder::new()
            .name("reports".to_owned())
            .spawn(move || write(gateway, &heard))
            .map_err(Error::io("start a thread for the launcher's reports"))?;
        Ok(Self(words))
    }

    /// Sends a report; never waits.
    pub fn send(&self, report: LauncherReport) {
        self.tell(Word::Report(report));
    }

    /// From now on to this gateway, beginning with what it must know of before.
    pub fn turn_to(&self, gateway: ChildStdin) {
        self.tell(Word::Gateway(gateway));
    }

    fn tell(&self, word: Word) {
        if self.0.send(word).is_err() {
            tracing::error!("the thread for the launcher's reports is gone");
        }
    }
}

/// The life of the thread: until the process ends, or nobody can report any more.
fn write(mut gateway: ChildStdin, heard: &Receiver<Word>) {
    let mut memory = Memory::default();
    for word in heard {
        match word {
            Word::Report(report) => {
                write_line(&mut gateway, &report);
                memory.keep(report);
            }
            Word::Gateway(another) => {
                gateway = another;
                memory.all().for_each(|report| write_line(&mut gateway, report));
            }
        }
    }
}

/// A gateway that has ended reads no more; the next one will.
fn write_line(gateway: &mut ChildStdin, report: &LauncherReport) {
    let line = serde_json::to_string(report).expect("plain data");
    if let Err(error) = writeln!(gateway, "{line}") {
        tracing::debug!(%error, "the gateway does not hear the launcher any more");
    }
}

/// What another gateway has to be told.
#[derive(Default)]
struct Memory {
    lines: VecDeque<LauncherReport>,
    /// Orders to stop and the launcher's end: a few at most, after all lines.
    events: Vec<LauncherReport>,
}

impl Memory {
    fn keep(&mut self, report: LauncherReport) {
        if !matches!(report, LauncherReport::Output(_)) {
            return self.events.push(report);
        }
        if self.lines.len() == REMEMBERED {
            self.lines.pop_front();
        }
        self.lines.push_back(report);
    }

    fn all(&self) -> impl Iterator<Item = &LauncherReport> {
        self.lines.iter().chain(&self.events)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn cat() -> Child {
        Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn said(mut cat: Child) -> String {
        let mut text = String::new();
        cat.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        cat.wait().unwrap();
        text
    }

    fn line(number: usize) -> LauncherReport {
        LauncherReport::Output(format!("line {number}."))
    }

    #[test]
    fn the_next_gateway_is_told_the_last_lines_and_every_event() {
        let (mut first, mut second) = (cat(), cat());
        let pipe = ReportPipe::open(first.stdin.take().unwrap()).unwrap();
        (0..REMEMBERED + 1).for_each(|number| pipe.send(line(number)));
        let reason = "told to".to_owned();
        pipe.send(LauncherReport::Stop { reason });
        pipe.turn_to(second.stdin.take().unwrap());
        pipe.send(line(REMEMBERED + 1));
        drop(pipe);
        let (first, second) = (said(first), said(second));
        assert_eq!(first.lines().count(), REMEMBERED + 2);
        assert!(first.contains("line 0."));
        let second: Vec<&str> = second.lines().collect();
        assert_eq!(second.len(), REMEMBERED + 2);
        assert!(second[0].contains("line 1."), "{}", second[0]);
        assert!(second[REMEMBERED].contains("told to"), "{}", second[REMEMBERED]);
    }

    #[test]
    fn a_gateway_that_hangs_holds_nobody_up_and_one_that_ended_neither() {
        let mut deaf = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut second = cat();
        let pipe = ReportPipe::open(deaf.stdin.take().unwrap()).unwrap();
        // Much more than a pipe holds.
        let long = "x".repeat(1000);
        (0..1000).for_each(|_| pipe.send(LauncherReport::Output(long.clone())));
        deaf.kill().unwrap();
        deaf.wait().unwrap();
        pipe.turn_to(second.stdin.take().unwrap());
        drop(pipe);
        assert_eq!(said(second).lines().count(), REMEMBERED);
    }
}

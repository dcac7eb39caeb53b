//! What the MPI launcher says before a death or instead of a start: its last paragraphs, each with how it begins and how it
//! ends. Open MPI's and MPICH's messages stand between rules, begin with what is wrong and end with advice.

use std::collections::VecDeque;

/// Paragraphs that are kept: an error often brings an explanation and a remark about how many said the same.
const PARAGRAPHS: usize = 3;
/// Lines of a paragraph that are kept, of its beginning and of its end.
const FIRST: usize = 5;
const LAST: usize = 3;
/// So many signs of one kind are a rule.
const RULE: usize = 8;
/// How lines of Open MPI's mpiexec begin that explain nothing: it passes on the batch system's SIGCONT, and its event loop
/// complains while it ends.
const NOISE: [&str; 2] = ["mpiexec: Forwarding signal", "[warn] Epoll"];

#[derive(Debug)]
pub(super) struct Launcher {
    /// Whether anybody listens to it.
    pub(super) heard: bool,
    pub(super) exited: Option<String>,
    /// Whether it has said something since the first unexplained loss.
    pub(super) spoke: bool,
    paragraphs: VecDeque<Paragraph>,
    /// The next line begins a paragraph.
    apart: bool,
}

#[derive(Debug, Default)]
struct Paragraph {
    first: Vec<String>,
    last: VecDeque<String>,
    cut: bool,
}

impl Launcher {
    pub(super) fn new(heard: bool) -> Self {
        Self {
            heard,
            exited: None,
            spoke: false,
            paragraphs: VecDeque::new(),
            apart: true,
        }
    }

    /// Something has happened: what it says from now on may be about that, and stands by itself.
    pub(super) fn listen(&mut self) {
        self.spoke = false;
        self.apart = true;
    }

    pub(super) fn hear(&mut self, line: &str) {
        let line = line.trim();
        if is_rule(line) {
            self.apart = true;
            return;
        }
        // MPICH draws frames.
        let line = line.strip_prefix("= ").unwrap_or(line).trim();
        let noise = NOISE.iter().any(|noise| line.starts_with(noise));
        if noise || line.is_empty() || line == "=" {
            return;
        }
        if std::mem::take(&mut self.apart) {
            if self.paragraphs.len() == PARAGRAPHS {
                self.paragraphs.pop_front();
            }
            self.paragraphs.push_back(Paragraph::default());
        }
        if let Some(paragraph) = self.paragraphs.back_mut() {
            paragraph.add(line);
        }
        self.spoke = true;
    }

    /// Its last words and its end, in one line; empty if there were none.
    pub(super) fn words(&self) -> String {
        let said: Vec<String> = self.paragraphs.iter().map(Paragraph::text).collect();
        let said = said.join(" ");
        match (&self.exited, said.is_empty()) {
            (None, true) => String::new(),
            (None, false) => format!("the launcher says: {said}"),
            (Some(end), true) => format!("the launcher {end}"),
            (Some(end), false) => format!("the launcher {end}; it says: {said}"),
        }
    }
}

impl Paragraph {
    fn add(&mut self, line: &str) {
        if self.first.len() < FIRST {
            return self.first.push(line.to_owned());
        }
        if self.last.len() == LAST {
            self.last.pop_front();
            self.cut = true;
        }
        self.last.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        let cut = self.cut.then_some("[…]");
        let first = self.first.iter().map(String::as_str);
        let last = self.last.iter().map(String::as_str);
        first.chain(cut).chain(last).collect::<Vec<_>>().join(" ")
    }
}

fn is_rule(line: &str) -> bool {
    let sign = line.chars().next().filter(|sign| "-=*".contains(*sign));
    sign.is_some_and(|sign| line.len() >= RULE && line.chars().all(|other| other == sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> String {
        let mut launcher = Launcher::new(true);
        text.lines().for_each(|line| launcher.hear(line));
        launcher.words()
    }

    #[test]
    fn a_long_message_keeps_how_it_begins_and_ends() {
        let advice: String = (0..30).map(|number| format!("  advice {number}\n")).collect();
        let words = words_of(&format!(
            "--------------\nThere are not enough slots to satisfy\nthe 99 slots.\n\n{advice}--------------\n"
        ));
        assert_eq!(
            words,
            "the launcher says: There are not enough slots to satisfy the 99 slots. advice 0 advice 1 advice 2 […] \
             advice 27 advice 28 advice 29"
        );
    }

    #[test]
    fn a_remark_behind_the_message_does_not_replace_it() {
        let words = words_of(
            "early warning\n----------\nfirst\n----------\n----------\nMPI_ABORT was invoked\n----------\n\
             [node] 3 more processes have sent help message\n",
        );
        assert_eq!(
            words,
            "the launcher says: first MPI_ABORT was invoked [node] 3 more processes have sent help message"
        );
    }

    #[test]
    fn frames_are_not_said() {
        let words = words_of(
            "====================\n=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   KILLED BY SIGNAL: 9\n\
             =\n====================\n",
        );
        assert_eq!(
            words,
            "the launcher says: BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES KILLED BY SIGNAL: 9"
        );
    }

    #[test]
    fn what_it_says_of_a_death_is_not_lost_behind_what_it_said_before() {
        let mut launcher = Launcher::new(true);
        (0..50).for_each(|number| launcher.hear(&format!("warning {number}")));
        launcher.listen();
        launcher.hear("srun: error: h2: task 3: Killed");
        (0..50).for_each(|number| launcher.hear(&format!("task {number}: Terminated")));
        assert!(
            launcher
                .words()
                .contains("warning 49 srun: error: h2: task 3: Killed task 0")
        );
    }

    #[test]
    fn a_list_is_no_rule() {
        assert_eq!(words_of("--- a\n---\n"), "the launcher says: --- a ---");
    }

    #[test]
    fn what_a_batch_system_makes_the_launcher_say_is_left_out() {
        let said = words_of(
            "mpiexec: Forwarding signal 18 to job\n[warn] Epoll MOD(4) on fd 25 failed.\nrank 3 was killed",
        );
        assert_eq!(said, "the launcher says: rank 3 was killed");
    }
}

//! Errors of many ranks as one text: equal ones are told once.

use ipengine_protocol::{EngineId, Outcome, RemoteException};

use crate::pending::Arrived;
use crate::targets::describe;
use crate::{Exit, report};

/// Equal errors.
struct Group {
    ranks: Vec<EngineId>,
    exception: RemoteException,
}

/// `rank 3` or `ranks 0-2`.
pub(super) fn name_ranks(ranks: &[EngineId]) -> String {
    let word = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{word} {}", describe(ranks))
}

/// All errors among the outcomes, each group with one traceback. Empty when there are none.
pub(super) fn merged<'a>(outcomes: impl IntoIterator<Item = &'a Arrived>) -> String {
    let mut groups: Vec<Group> = Vec::new();
    for arrived in outcomes {
        let Some(exception) = report::exception(arrived) else {
            continue;
        };
        let same = |group: &&mut Group| alike(&group.exception, &exception);
        match groups.iter_mut().find(same) {
            Some(group) => group.ranks.push(arrived.engine),
            None => groups.push(Group {
                ranks: vec![arrived.engine],
                exception,
            }),
        }
    }
    groups.iter().map(Group::text).collect::<Vec<_>>().join("\n")
}

impl Group {
    fn text(&self) -> String {
        let head = format!("{}: {}", name_ranks(&self.ranks), self.exception.summary());
        let traceback = self.exception.traceback.trim_end();
        // A traceback of one line is what the head says already.
        if traceback.contains('\n') {
            format!("{head}\n{traceback}")
        } else {
            head
        }
    }
}

/// Cells have another number, and so another file name, on each rank: the source line tells what is the same.
fn alike(a: &RemoteException, b: &RemoteException) -> bool {
    let place = |exception: &RemoteException| {
        exception
            .frames
            .last()
            .map(|frame| (frame.function.clone(), frame.line, frame.source.clone()))
    };
    a.type_name == b.type_name && a.message == b.message && place(a) == place(b)
}

/// The exit code that stands for the worst outcome.
pub(super) fn exit<'a>(outcomes: impl IntoIterator<Item = &'a Arrived>) -> Exit {
    let code = |arrived: &Arrived| match arrived.outcome {
        Outcome::Done(_) => Exit::Ok,
        Outcome::Raised(_) | Outcome::Interrupted(_) | Outcome::Aborted { .. } => Exit::Remote,
        Outcome::Lost(_) => Exit::Lost,
    };
    outcomes
        .into_iter()
        .map(code)
        .max_by_key(|exit| *exit as i32)
        .unwrap_or(Exit::Ok)
}

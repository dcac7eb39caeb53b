//! Tasks that any of several engines may run, until one of those has room. They get their place in the total order
//! only then: an engine drops an order that is below one it has had.
//!
//! Tasks with the same candidates form a group, so that finding an engine's next task looks at one front per group and
//! not at every task. Across groups the older task goes first.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use ipengine_protocol::{EngineId, InstructionId, Work};

/// Ages count up from here for new tasks and down for those that were given back.
const MIDDLE: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: InstructionId,
    pub(super) bytes: u64,
    pub(super) candidates: Rc<[EngineId]>,
    pub(super) work: Work,
    pub(super) blobs: Vec<Bytes>,
}

/// Waiting tasks by age.
#[derive(Debug, Default)]
pub(super) struct Pool {
    last: u64,
    /// How many were put in front of all others.
    returned: u64,
    tasks: HashMap<u64, Task>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    candidates: Rc<[EngineId]>,
    /// Ages of tasks; some may have been removed since.
    waiting: VecDeque<u64>,
}

impl Pool {
    /// The candidates, shared with the tasks that have the same.
    pub(super) fn intern(&self, candidates: &[EngineId]) -> Rc<[EngineId]> {
        let known = self.groups.iter().find(|group| *group.candidates == *candidates);
        known.map_or_else(|| candidates.into(), |group| group.candidates.clone())
    }

    /// Puts a task at the end; returns its age.
    pub(super) fn push(&mut self, task: Task) -> u64 {
        self.last += 1;
        let age = MIDDLE + self.last;
        self.group(&task.candidates).waiting.push_back(age);
        self.tasks.insert(age, task);
        age
    }

    /// Puts a task that was given before in front of all others; returns its age.
    pub(super) fn push_front(&mut self, task: Task) -> u64 {
        self.returned += 1;
        let age = MIDDLE - self.returned;
        self.group(&task.candidates).waiting.push_front(age);
        self.tasks.insert(age, task);
        age
    }

    fn group(&mut self, candidates: &Rc<[EngineId]>) -> &mut Group {
        let known = self
            .groups
            .iter()
            .position(|group| group.candidates == *candidates);
        let at = known.unwrap_or_else(|| {
            self.groups.push(Group {
                candidates: candidates.clone(),
                waiting: VecDeque::new(),
            });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    /// Whether an older task with these candidates waits.
    pub(super) fn has_older(&self, candidates: &[EngineId]) -> bool {
        self.groups.iter().any(|group| {
            *group.candidates == *candidates && group.waiting.iter().any(|age| self.tasks.contains_key(age))
        })
    }

    /// Takes the oldest task that this engine may run.
    pub(super) fn take_for(&mut self, engine: EngineId) -> Option<Task> {
        let Self { tasks, groups, .. } = self;
        groups.retain_mut(|group| {
            while group.waiting.front().is_some_and(|age| !tasks.contains_key(age)) {
                group.waiting.pop_front();
            }
            !group.waiting.is_empty()
        });
        let fitting = groups
            .iter_mut()
            .filter(|group| group.candidates.contains(&engine));
        let age = fitting
            .min_by_key(|group| group.waiting[0])?
            .waiting
            .pop_front()?;
        tasks.remove(&age)
    }

    pub(super) fn remove(&mut self, age: u64) -> Option<Task> {
        self.tasks.remove(&age)
    }

    /// Takes all tasks, oldest first, that satisfy `which`.
    pub(super) fn drain(&mut self, which: impl Fn(&Task) -> bool) -> Vec<Task> {
        let mut ages: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| which(task))
            .map(|(age, _)| *age)
            .collect();
        ages.sort_unstable();
        ages.iter().filter_map(|age| self.tasks.remove(age)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

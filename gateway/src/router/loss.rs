//! Death: of one engine, and with it of the world. The first death is the cause of all that follow; the launcher gets
//! a moment to explain what the engine itself could not.

use ipengine_protocol::outcome::{LossKind, signal_name};
use ipengine_protocol::{EngineId, Event, LossCause};

use super::registry::Life;
use super::world::StopOrigin;
use super::{Now, Router, Timer};
use crate::{LauncherReport, Outbox};

impl<O: Outbox> Router<O> {
    /// An engine's link is gone. `process_gone`: its process is known to be, too.
    pub fn on_engine_closed(&mut self, engine: EngineId, process_gone: bool, now: Now) {
        let row = &mut self.engines[engine.index()];
        row.linked = false;
        row.missing_since = Some(now.at);
        if row.is_gone() {
            self.end_if_all_left(now);
        } else if process_gone || self.world.launcher.exited.is_some() || self.world.death.cause.is_some() {
            self.lost_without_word(engine, now);
        } else {
            self.set_timer(now.at + self.limits.reconnect, Timer::Silent(engine));
        }
    }

    /// The process of an engine whose link is gone is gone too.
    pub fn on_process_gone(&mut self, engine: EngineId, now: Now) {
        let row = &self.engines[engine.index()];
        if !row.linked && !row.is_gone() {
            self.lost_without_word(engine, now);
        }
    }

    /// Whether the engine is waited for after its link closed.
    #[must_use]
    pub fn is_missing(&self, engine: EngineId) -> bool {
        let row = &self.engines[engine.index()];
        matches!(row.life, Life::Alive) && !row.linked && !self.world.death.unexplained.contains(&engine)
    }

    fn missing(&self) -> Vec<EngineId> {
        let ids = self.engines.iter().map(|row| row.id);
        ids.filter(|id| self.is_missing(*id)).collect()
    }

    pub(super) fn on_silence_limit(&mut self, engine: EngineId, now: Now) {
        // It may have come back and gone again since the timer was set.
        let since = self.engines[engine.index()].missing_since;
        let over = since.is_some_and(|since| now.at >= since + self.limits.reconnect);
        if over && self.is_missing(engine) {
            self.lost_without_word(engine, now);
        }
    }

    /// It is lost, and did not say why.
    fn lost_without_word(&mut self, engine: EngineId, now: Now) {
        if let Some(cause) = &self.world.death.cause {
            let cause = consequence(cause);
            return self.lose(engine, cause, now);
        }
        // A launcher that kills the others at once makes it chance whose end is seen first; the first link to close is not.
        let first = self.first_missing().unwrap_or(engine);
        let begins = self.world.death.unexplained.is_empty();
        for lost in [first, engine] {
            if !self.world.death.unexplained.contains(&lost) {
                self.world.death.unexplained.push(lost);
            }
        }
        let launcher = &mut self.world.launcher;
        if !launcher.heard || launcher.exited.is_some() {
            self.settle(now);
        } else if begins {
            launcher.listen();
            self.set_timer(now.at + self.limits.launcher, Timer::Settle);
        }
    }

    /// Of the engines whose links are closed the one that closed first.
    fn first_missing(&self) -> Option<EngineId> {
        let missing = self.engines.iter().filter(|row| self.is_missing(row.id));
        missing.min_by_key(|row| row.missing_since).map(|row| row.id)
    }

    /// Decides the cause of unexplained losses with what is known.
    pub(super) fn settle(&mut self, now: Now) {
        let unexplained = std::mem::take(&mut self.world.death.unexplained);
        let Some(first) = unexplained.first().copied() else {
            return;
        };
        if let Some(cause) = self.world.death.cause.as_ref().map(consequence) {
            return unexplained
                .iter()
                .for_each(|engine| self.lose(*engine, cause.clone(), now));
        }
        let host = self.engines[first.index()].host().to_owned();
        let detail = self.world.launcher.words();
        let cause = LossCause {
            engine: first.0,
            host,
            kind: LossKind::LinkClosed,
            detail,
        };
        self.die(first, cause, &unexplained, now);
    }

    pub(super) fn on_dying(&mut self, engine: EngineId, cause: LossCause, now: Now) {
        if let Some(first) = &self.world.death.cause {
            let cause = consequence(first);
            return self.lose(engine, cause, now);
        }
        let mut unexplained = std::mem::take(&mut self.world.death.unexplained);
        // The launcher's own signals follow a death; they do not explain one.
        let follows = matches!(cause.kind, LossKind::Signal(2 | 15)) && !unexplained.is_empty();
        if follows {
            unexplained.push(engine);
            self.world.death.unexplained = unexplained;
            return self.settle(now);
        }
        self.die(engine, cause, &unexplained, now);
    }

    fn die(&mut self, first: EngineId, cause: LossCause, others: &[EngineId], now: Now) {
        tracing::warn!(engine = %first, %cause, "engine lost");
        self.world.disorder = true;
        self.world.death.cause = Some(cause.clone());
        let consequence = consequence(&cause);
        self.lose(first, cause, now);
        for other in others.iter().filter(|other| **other != first) {
            self.lose(*other, consequence.clone(), now);
        }
        self.set_timer(now.at + self.limits.survivors, Timer::Survivors);
        // Who is missing at this moment died with it.
        for engine in self.missing() {
            self.lose(engine, consequence.clone(), now);
        }
        let ending = self
            .world
            .stop
            .as_ref()
            .is_some_and(|stop| stop.origin == StopOrigin::Death);
        if ending {
            self.lose_to_death(now);
        }
    }

    /// The launcher ends the others because of the death: all that they have is lost with it, whatever they still say.
    pub(super) fn lose_to_death(&mut self, now: Now) {
        let Some(cause) = self.world.death.cause.as_ref().map(consequence) else {
            return;
        };
        for engine in self.engines.iter().map(|row| row.id).collect::<Vec<_>>() {
            self.lose(engine, cause.clone(), now);
        }
    }

    /// Ends all that the engine had and tells everybody. Final.
    pub(super) fn lose(&mut self, engine: EngineId, cause: LossCause, now: Now) {
        let row = &mut self.engines[engine.index()];
        if row.is_gone() {
            return;
        }
        row.life = Life::Gone(cause.clone());
        row.since = now.unix;
        self.end_all_on(engine, &cause, now);
        self.end_interrupts_on(engine, &cause.to_string());
        self.end_questions_to(engine);
        self.tell_all(&Event::EngineLost { engine, cause });
        self.end_if_all_left(now);
    }

    /// The world ends because of a death whose cause is not decided yet: what ends now is lost with it.
    pub(super) fn death_is_pending(&self) -> bool {
        let ending = self
            .world
            .stop
            .as_ref()
            .is_some_and(|stop| stop.origin == StopOrigin::Death);
        ending && !self.world.death.unexplained.is_empty()
    }

    pub(super) fn on_leaving(&mut self, engine: EngineId, now: Now) {
        if self.death_is_pending() {
            if !self.world.death.unexplained.contains(&engine) {
                self.world.death.unexplained.push(engine);
            }
            return self.acknowledge(engine);
        }
        let host = self.engines[engine.index()].host().to_owned();
        let detail = self
            .world
            .stop
            .as_ref()
            .map_or_else(String::new, |stop| stop.reason.clone());
        self.lose(
            engine,
            LossCause {
                engine: engine.0,
                host,
                kind: LossKind::Stopped,
                detail,
            },
            now,
        );
        self.acknowledge(engine);
    }

    /// Somebody outside wants the job to end.
    pub(super) fn on_signalled(&mut self, engine: EngineId, signal: i32, now: Now) {
        // Who is missing while the launcher ends the job will not come back: that is what it ends the job for.
        for missing in self.missing() {
            self.lost_without_word(missing, now);
        }
        // After a death the launcher ends the others with signals.
        let death = &self.world.death;
        let follows = death.cause.is_some() || !death.unexplained.is_empty();
        let origin = if follows {
            StopOrigin::Death
        } else {
            StopOrigin::Signal
        };
        self.begin_stop(
            format!("rank {engine} received {}", signal_name(signal)),
            origin,
            now,
        );
    }

    pub(super) fn stop_survivors(&mut self, now: Now) {
        if let Some(cause) = &self.world.death.cause {
            let reason = format!("the world ended because {cause}");
            self.begin_stop(reason, StopOrigin::Death, now);
        }
    }

    /// The launcher said something or ended.
    pub fn on_launcher(&mut self, report: &LauncherReport, now: Now) {
        match report {
            LauncherReport::Output(line) => {
                let spoke = self.world.launcher.spoke;
                self.world.launcher.hear(line);
                if !spoke && self.world.launcher.spoke && !self.world.death.unexplained.is_empty() {
                    self.set_timer(now.at + self.limits.launcher_more, Timer::Settle);
                }
            }
            LauncherReport::Exited { code, signal } => self.on_launcher_exit(*code, *signal, now),
            LauncherReport::Stop { reason } => self.on_told_to_stop(reason, now),
        }
    }

    /// Before the end an orderly stop; after it, no more time for clients that still fetch.
    fn on_told_to_stop(&mut self, reason: &str, now: Now) {
        if self.world.end.is_some() {
            self.cluster.linger = std::time::Duration::ZERO;
            self.attention = true;
        } else {
            self.begin_stop(reason.to_owned(), StopOrigin::Signal, now);
        }
    }

    /// Nobody will report what the launcher says any more.
    pub fn on_launcher_silent(&mut self, now: Now) {
        self.world.launcher.heard = false;
        self.settle(now);
    }

    fn on_launcher_exit(&mut self, code: Option<i32>, signal: Option<i32>, now: Now) {
        let end = match (code, signal) {
            (_, Some(signal)) => format!("was killed by signal {signal} ({})", signal_name(signal)),
            (Some(code), None) => format!("ended with exit code {code}"),
            (None, None) => "ended".to_owned(),
        };
        self.world.launcher.exited = Some(end);
        if !self.world.complete {
            let words = self.world.launcher.words();
            let reason = if self.cluster.restarted {
                words
            } else {
                format!("the world did not start: {words}")
            };
            self.world.disorder = true;
            return self.end_now(&reason, now);
        }
        let missing = self.missing();
        self.world.death.unexplained.extend(missing);
        self.settle(now);
        if self.world.stop.is_none() && self.world.death.cause.is_none() {
            // Its engines still talk to us: they get the time that survivors of a death get.
            self.set_timer(now.at + self.limits.survivors, Timer::Stop);
        }
    }
}

/// The cause for an engine that went because another did.
fn consequence(cause: &LossCause) -> LossCause {
    let mut detail = format!("the world ended because engine {} was lost", cause.engine);
    if !cause.detail.is_empty() {
        detail = format!("{detail}: {}", cause.detail);
    }
    LossCause {
        detail,
        ..cause.clone()
    }
}

//! The end: asked for, or come upon us. And when the gateway itself may leave.

use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{ClientId, EngineId, Event, LossCause, Order, Outcome, ToEngine};

use super::registry::Life;
use super::world::{End, Stop, StopOrigin};
use super::{Now, Phase, Router, Timer};
use crate::{Lane, Outbox};

/// Longest time to stay for clients after the end, whatever is configured.
const LONGEST_LINGER: std::time::Duration = std::time::Duration::from_secs(300);

impl<O: Outbox> Router<O> {
    /// How far the world is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.world.phase()
    }

    pub(super) fn on_shutdown(&mut self, client: ClientId, reason: &str, now: Now) {
        let user = self.clients.get(client).map_or("", |state| &state.user);
        let reason = if reason.is_empty() {
            format!("stopped by {user}")
        } else {
            format!("stopped by {user}: {reason}")
        };
        self.begin_stop(reason, StopOrigin::Asked, now);
    }

    /// Stops the world: nothing new, nothing that has not begun, engines leave.
    pub fn begin_stop(&mut self, reason: String, origin: StopOrigin, now: Now) {
        if self.world.stop.is_some() || self.world.end.is_some() {
            return;
        }
        tracing::info!(reason, "stopping");
        self.world.stop = Some(Stop {
            reason: reason.clone(),
            origin,
        });
        // Before the engines end what they run as interrupted: it is lost because of the death.
        if origin == StopOrigin::Death {
            self.lose_to_death(now);
        }
        if !self.death_is_pending() {
            self.abort_unsent(&reason, now);
        }
        for row in self.engines.iter().map(|row| row.id).collect::<Vec<_>>() {
            self.tell_engine(
                row,
                &ToEngine::Stop {
                    reason: reason.clone(),
                },
                Lane::Control,
            );
        }
        self.set_timer(now.at + self.limits.stop, Timer::Stop);
        self.end_if_all_left(now);
    }

    fn abort_unsent(&mut self, reason: &str, now: Now) {
        let aborted = Outcome::Aborted {
            reason: reason.to_owned(),
        };
        for task in self.pool.drain(|_| true) {
            self.end_task(&task, aborted.clone());
        }
        let waiting = self
            .instructions
            .iter()
            .filter(|(_, instruction)| !instruction.has_left());
        let mut orders: Vec<Order> = waiting.map(|(order, _)| *order).collect();
        orders.sort_unstable();
        for order in orders {
            self.end_unsent(order, |_| aborted.clone(), now);
        }
    }

    /// Engines that were to stop have not: the end does not wait for them.
    pub(super) fn on_stop_limit(&mut self, now: Now) {
        if self.world.end.is_some() {
            return;
        }
        self.world.disorder = true;
        let reason = self.reason();
        self.end_now(&reason, now);
    }

    /// Not all engines have come.
    pub(super) fn on_start_limit(&mut self, now: Now) {
        let settled = self.world.complete || self.world.end.is_some() || self.world.stop.is_some();
        if settled || self.world.start_by.is_none_or(|limit| now.at < limit) {
            return;
        }
        let awaited = self
            .engines
            .iter()
            .filter(|row| matches!(row.life, Life::Awaited));
        let awaited: Vec<String> = awaited.map(|row| row.id.to_string()).collect();
        let (limit, of) = if self.world.first_seen {
            (self.limits.start, "of the first one")
        } else {
            (self.limits.first_engine, "of the start")
        };
        self.world.disorder = true;
        let reason = if awaited.is_empty() {
            format!("no engine connected within {limit:?} {of}")
        } else {
            format!(
                "engines {} did not connect within {limit:?} {of}",
                awaited.join(", ")
            )
        };
        self.begin_stop(reason, StopOrigin::Asked, now);
    }

    /// The world has ended when every engine that ever came has left.
    pub(super) fn end_if_all_left(&mut self, now: Now) {
        let closing = self.world.stop.is_some() || self.world.death.cause.is_some();
        let left = |row: &super::registry::Engine| match row.life {
            Life::Gone(_) => !row.linked,
            Life::Awaited => closing,
            Life::Alive => false,
        };
        if self.world.end.is_none() && self.engines.iter().all(left) {
            let reason = self.reason();
            self.end_now(&reason, now);
        }
    }

    fn reason(&self) -> String {
        match (&self.world.stop, &self.world.death.cause) {
            (
                Some(Stop {
                    origin: StopOrigin::Death,
                    ..
                })
                | None,
                Some(cause),
            ) => cause.to_string(),
            (
                Some(Stop {
                    origin: StopOrigin::Signal,
                    reason,
                }),
                Some(cause),
            ) => format!("{reason}; {cause}"),
            (Some(stop), _) => stop.reason.clone(),
            (None, None) => match &self.world.launcher.exited {
                Some(_) => self.world.launcher.words(),
                None => "all engines have left".to_owned(),
            },
        }
    }

    /// Ends the world whoever is still there.
    pub(super) fn end_now(&mut self, reason: &str, now: Now) {
        if self.world.end.is_some() {
            return;
        }
        let orderly = !self.world.disorder;
        self.world.end = Some(End {
            reason: reason.to_owned(),
            orderly,
            at: now.at,
        });
        for id in self.engines.iter().map(|row| row.id).collect::<Vec<EngineId>>() {
            let host = self.engines[id.index()].host().to_owned();
            let kind = if self.engines[id.index()].linked {
                LossKind::Stopped
            } else {
                LossKind::LinkClosed
            };
            self.lose(
                id,
                LossCause {
                    engine: id.0,
                    host,
                    kind,
                    detail: reason.to_owned(),
                },
                now,
            );
            self.out.close_engine(id);
        }
        tracing::info!(reason, orderly, "the world has ended");
        self.tell_all(&Event::Ended {
            reason: reason.to_owned(),
        });
        self.attention = true;
    }

    /// After the end: whether no client would miss the gateway, or has had its time.
    pub fn may_leave(&mut self, now: Now) -> bool {
        let Some(end) = &self.world.end else { return false };
        if !self.clients.all().any(super::clients::Client::holds_gateway) {
            return true;
        }
        let active = self.clients.last_activity.map_or(end.at, |at| at.max(end.at));
        let linger = self.cluster.linger.min(LONGEST_LINGER);
        let until = (active + linger).min(end.at + LONGEST_LINGER);
        if self.world.linger_until.replace(until) != Some(until) {
            self.set_timer(until, Timer::Linger);
        }
        now.at >= until
    }
}
